// The same as a Node handler, with AWS's own SDK.
import { SESClient, SendBounceCommand } from "@aws-sdk/client-ses";

export async function handler(event) {
  const { mail, receipt } = event.Records[0].ses;
  await new SESClient({}).send(
    new SendBounceCommand({
      OriginalMessageId: mail.messageId,
      BounceSender: "mailer-daemon@example.com",
      MessageDsn: { ReportingMta: "dns; example.com", ArrivalDate: new Date(), ExtensionFields: [] },
      BouncedRecipientInfoList: receipt.recipients.map((Recipient) => ({
        Recipient,
        BounceType: "ContentRejected",
      })),
    }),
  );
  return { disposition: "STOP_RULE_SET" };
}
