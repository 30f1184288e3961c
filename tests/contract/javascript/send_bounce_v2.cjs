// SendBounce by version 2 of the JavaScript SDK: node send_bounce_v2.cjs ENDPOINT MESSAGE_ID REASON
// Prints, as JSON, the MessageId, or the error's code and text.
process.env.AWS_SDK_JS_SUPPRESS_MAINTENANCE_MODE_MESSAGE = "1";
const SES = require("aws-sdk/clients/ses");

const [endpoint, messageId, reason] = process.argv.slice(2);
const client = new SES({
  endpoint,
  region: "us-east-1",
  credentials: { accessKeyId: "test", secretAccessKey: "test" },
});
const parameters = {
  OriginalMessageId: messageId,
  BounceSender: "mailer-daemon@example.com",
  MessageDsn: { ReportingMta: "dns; example.com", ArrivalDate: new Date(), ExtensionFields: [] },
  BouncedRecipientInfoList: [{ Recipient: "bob@example.com", BounceType: reason }],
};
client.sendBounce(parameters, (error, answer) => {
  const found = error ? { name: error.code, message: error.message } : { id: answer.MessageId };
  console.log(JSON.stringify(found));
});
