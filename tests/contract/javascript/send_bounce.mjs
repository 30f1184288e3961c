// SendBounce by the JavaScript SDK: node send_bounce.mjs ENDPOINT MESSAGE_ID REASON
// Prints, as JSON, the MessageId and the number of attempts, or the error's name and text.
import { SESClient, SendBounceCommand } from "@aws-sdk/client-ses";

const [endpoint, messageId, reason] = process.argv.slice(2);
const client = new SESClient({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
});
try {
  const answer = await client.send(
    new SendBounceCommand({
      OriginalMessageId: messageId,
      BounceSender: "mailer-daemon@example.com",
      MessageDsn: { ReportingMta: "dns; example.com", ArrivalDate: new Date(), ExtensionFields: [] },
      BouncedRecipientInfoList: [{ Recipient: "bob@example.com", BounceType: reason }],
    }),
  );
  console.log(JSON.stringify({ id: answer.MessageId, attempts: answer.$metadata.attempts }));
} catch (error) {
  console.log(JSON.stringify({ name: error.name, message: error.message }));
}
