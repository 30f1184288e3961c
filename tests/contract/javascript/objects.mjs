// Calls of the small S3 by the SDK: node objects.mjs ENDPOINT. Prints what it found as JSON.
import { Readable } from "node:stream";
import {
  CopyObjectCommand, DeleteObjectCommand, GetObjectCommand, HeadObjectCommand,
  ListObjectsV2Command, PutObjectCommand, S3Client,
} from "@aws-sdk/client-s3";

const client = new S3Client({
  endpoint: process.argv[2],
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
  maxAttempts: 1,
});
const Bucket = "mail";
const found = {};

// A body in memory has its checksum in a header, a stream has it in a trailer (aws-chunked).
const put = await client.send(
  new PutObjectCommand({ Bucket, Key: "a b/ä", Body: "Hello", Metadata: { state: "new" } }),
);
found.checksum = put.ChecksumCRC32;
const large = Buffer.alloc(3_000_000, "0123456789");
await client.send(
  new PutObjectCommand({
    Bucket, Key: "stream", ContentLength: large.length,
    Body: Readable.from((function* () {
      for (let at = 0; at < large.length; at += 50_000) yield large.subarray(at, at + 50_000);
    })(), { objectMode: false }),
  }),
);
const stream = await client.send(new GetObjectCommand({ Bucket, Key: "stream" }));
found.streamed = Buffer.from(await stream.Body.transformToByteArray()).equals(large);
found.streamChecksum = Boolean(stream.ChecksumCRC32);
await client.send(new CopyObjectCommand({ Bucket, Key: "copy", CopySource: "mail/a%20b/%C3%A4" }));
const head = await client.send(new HeadObjectCommand({ Bucket, Key: "copy" }));
found.metadata = head.Metadata;
const part = await client.send(
  new GetObjectCommand({ Bucket, Key: "copy", Range: "bytes=1-3" }),
);
found.part = await part.Body.transformToString();
await client.send(new DeleteObjectCommand({ Bucket, Key: "stream" }));
const listed = await client.send(new ListObjectsV2Command({ Bucket, Delimiter: "/" }));
found.keys = listed.Contents.map((each) => each.Key);
found.prefixes = listed.CommonPrefixes.map((each) => each.Prefix);
try {
  await client.send(new GetObjectCommand({ Bucket, Key: "none" }));
} catch (error) {
  found.error = error.name;
}
console.log(JSON.stringify(found));
