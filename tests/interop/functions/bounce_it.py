"""The example that everyone starts from: look at the verdicts, call SendBounce, stop."""

import boto3


def handler(event, context):
    ses = event["Records"][0]["ses"]
    receipt = ses["receipt"]
    print("spam verdict:", receipt["spamVerdict"]["status"])
    boto3.client("ses").send_bounce(
        OriginalMessageId=ses["mail"]["messageId"],
        BounceSender="mailer-daemon@example.com",
        Explanation="Unfortunately, we could not accept your message.",
        MessageDsn={"ReportingMta": "dns; example.com", "ExtensionFields": []},
        BouncedRecipientInfoList=[
            {"Recipient": recipient, "BounceType": "ContentRejected"}
            for recipient in receipt["recipients"]
        ],
    )
    return {"disposition": "stop_rule_set"}
