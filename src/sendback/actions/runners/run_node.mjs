// Runs one Node handler: an event a line on standard input, an answer a line on a pipe.
// FILE EXPORT PIPE. The handler is async, or takes a callback, as Lambda's do.
import { randomUUID } from "node:crypto";
import { writeSync } from "node:fs";
import { setPriority } from "node:os";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

setPriority(5); // receiving mail comes first

const [file, name, pipe] = process.argv.slice(2);

function context(arn, seconds) {
  const ends = Date.now() + seconds * 1000;
  return {
    awsRequestId: randomUUID(),
    invokedFunctionArn: arn,
    functionName: arn.split(":")[6],
    functionVersion: "$LATEST",
    callbackWaitsForEmptyEventLoop: true,
    getRemainingTimeInMillis: () => Math.max(0, ends - Date.now()),
  };
}

async function handler() {
  const module = await import(pathToFileURL(file));
  const found = module[name] ?? module.default?.[name];
  if (typeof found !== "function") throw new Error(`${file} exports no function ${name}`);
  return found;
}

function call(found, event, given) {
  return new Promise((resolve, reject) => {
    const callback = (error, result) => (error ? reject(error) : resolve(result));
    const result = found(event, given, callback);
    if (typeof result?.then === "function") result.then(resolve, reject);
    else if (found.length < 3) resolve(result);
  });
}

function write(text) {
  let rest = Buffer.from(text + "\n");
  while (rest.length) {
    try {
      rest = rest.subarray(writeSync(Number(pipe), rest));
    } catch (error) {
      if (error.code !== "EAGAIN") throw error;
    }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { event, arn, seconds } = JSON.parse(line);
  try {
    const result = await call(await handler(), event, context(arn, seconds));
    write(JSON.stringify({ result: result ?? null }));
  } catch (error) {
    console.error(error);
    write(JSON.stringify({ error: String(error) }));
  }
}
process.exit(0);
