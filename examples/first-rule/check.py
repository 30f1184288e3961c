"""A function for a rule, as AWS Lambda would run it: it bounces mail to unknown mailboxes."""

import boto3

MAILBOXES = {"bob", "postmaster"}

ses = boto3.client("ses")  # Sendback sets the endpoint, the region and the key in the environment


def handler(event, context):
    mail = event["Records"][0]["ses"]["mail"]
    recipients = event["Records"][0]["ses"]["receipt"]["recipients"]
    unknown = [address for address in recipients if address.rpartition("@")[0] not in MAILBOXES]
    if unknown and mail["source"]:  # without a sender, the mail is itself a bounce
        ses.send_bounce(
            OriginalMessageId=mail["messageId"],
            BounceSender="mailer-daemon@example.com",
            BouncedRecipientInfoList=[
                {"Recipient": address, "BounceType": "DoesNotExist"} for address in unknown
            ],
        )
    return {"disposition": "STOP_RULE_SET" if unknown == recipients else "CONTINUE"}
