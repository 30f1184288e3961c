// A Lambda function that bounces mail which fails DMARC, if the sender's domain asks for that.
// After the example in AWS's developer guide.
import { SESClient, SendBounceCommand } from "@aws-sdk/client-ses";

const domain = process.env.EMAIL_DOMAIN ?? "example.com";
const ses = new SESClient({});

export async function handler(event) {
  const { mail, receipt } = event.Records[0].ses;
  // receipt.dmarcPolicy is there only if the verdict is FAIL.
  if (receipt.dmarcVerdict.status !== "FAIL" || receipt.dmarcPolicy.toLowerCase() !== "reject") {
    return { disposition: "CONTINUE" };
  }
  if (mail.source) {
    // Without a sender, the mail is itself a bounce.
    await ses.send(
      new SendBounceCommand({
        OriginalMessageId: mail.messageId,
        BounceSender: `mailer-daemon@${domain}`,
        MessageDsn: { ReportingMta: `dns; ${domain}`, ArrivalDate: new Date() },
        Explanation: "Unauthenticated email is not accepted due to the sending domain's DMARC policy.",
        BouncedRecipientInfoList: receipt.recipients.map((Recipient) => ({
          Recipient,
          BounceType: "ContentRejected",
        })),
      }),
    );
  }
  return { disposition: "STOP_RULE_SET" };
}
