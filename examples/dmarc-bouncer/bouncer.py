"""A Lambda function that bounces mail which fails DMARC, if the sender's domain asks for that.

After the example in AWS's developer guide. Its rule calls it with RequestResponse, before the
actions that store the mail.
"""

import os
from datetime import UTC, datetime

import boto3

DOMAIN = os.environ.get("EMAIL_DOMAIN", "example.com")

ses = boto3.client("ses")


def handler(event, context):
    notification = event["Records"][0]["ses"]
    mail, receipt = notification["mail"], notification["receipt"]
    # receipt["dmarcPolicy"] is there only if the verdict is FAIL
    if receipt["dmarcVerdict"]["status"] != "FAIL" or receipt["dmarcPolicy"].lower() != "reject":
        return {"disposition": "CONTINUE"}
    if mail["source"]:  # without a sender, the mail is itself a bounce
        ses.send_bounce(
            OriginalMessageId=mail["messageId"],
            BounceSender=f"mailer-daemon@{DOMAIN}",
            MessageDsn={"ReportingMta": f"dns; {DOMAIN}", "ArrivalDate": datetime.now(UTC)},
            Explanation="Unauthenticated email is not accepted due to the sending domain's "
            "DMARC policy.",
            BouncedRecipientInfoList=[
                {"Recipient": recipient, "BounceType": "ContentRejected"}
                for recipient in receipt["recipients"]
            ],
        )
    return {"disposition": "STOP_RULE_SET"}
