"""SendBounce by boto3: every row of the table of what a caller gets, against a whole server."""

import email
import email.policy
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from sendback.dsn import parse
from tests.partners.clients import MAIL

SENDER = "mailer-daemon@example.com"
BOB = {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}


def send(server, message_id, *recipients, **members):
    return server.ses.send_bounce(
        OriginalMessageId=message_id,
        **{
            "BounceSender": SENDER,
            "BouncedRecipientInfoList": list(recipients) or [BOB],
            **members,
        },
    )


def refused(server, message_id, *recipients, **members):
    """The error's code, HTTP status and text; nothing may have been queued."""
    before = len(server.outbox())
    with pytest.raises(ClientError) as caught:
        send(server, message_id, *recipients, **members)
    assert len(server.outbox()) == before
    response = caught.value.response
    assert response["ResponseMetadata"]["RequestId"]
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    return response["Error"]["Code"], status, response["Error"]["Message"]


def composed(server, answer):
    return parse(server.bounce(answer["MessageId"]).content)


def test_a_bounce_is_sent_to_the_reverse_path(server):
    answer = send(server, server.send_mail())
    queued = server.bounce(answer["MessageId"])
    assert (queued.state, str(queued.recipient)) == ("captured", "ann@sender.example")
    dsn = parse(queued.content)
    assert dsn.header_value("Message-ID") == f"<{answer['MessageId']}@mx.example.com>"
    assert dsn.header_value("From") == SENDER
    assert dsn.header_value("To") == "ann@sender.example"
    assert dsn.header_value("In-Reply-To") == "<lunch@sender.example>"
    assert dsn.message_fields == (
        ("Reporting-MTA", "dns; mx.example.com"),
        ("Arrival-Date", "Sun, 01 Mar 2026 12:00:00 +0000"),
    )
    assert dsn.recipients[0].fields == (
        ("Action", "failed"),
        ("Final-Recipient", "rfc822; bob@example.com"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 Mailbox does not exist"),
        ("Status", "5.1.1"),
        ("Last-Attempt-Date", "Sun, 01 Mar 2026 12:00:00 +0000"),
    )
    assert dsn.returned.endswith(MAIL.partition(b"\r\n\r\n")[0] + b"\r\n")
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"]
    assert answer["ResponseMetadata"]["HTTPHeaders"]["content-type"].startswith("text/xml")


@pytest.mark.parametrize(
    ("reason", "status", "diagnostic"),
    [
        ("DoesNotExist", "5.1.1", "smtp; 550 5.1.1 Mailbox does not exist"),
        ("MessageTooLarge", "5.3.4", "smtp; 552 5.3.4 Message too large"),
        ("ExceededQuota", "5.2.2", "smtp; 552 5.2.2 Mailbox full"),
        ("ContentRejected", "5.6.1", "smtp; 550 5.6.1 Message content rejected"),
        ("Undefined", "5.0.0", "smtp; 554 5.0.0 Unknown failure"),
        ("TemporaryFailure", "4.0.0", "smtp; 450 4.0.0 Temporary failure"),
    ],
)
def test_every_bounce_type(server, reason, status, diagnostic):
    bounced = {"Recipient": "bob@example.com", "BounceType": reason}
    recipient = composed(server, send(server, server.send_mail(), bounced)).recipients[0]
    fields = dict(recipient.fields)
    assert (fields["Action"], fields["Status"], fields["Diagnostic-Code"]) == (
        "failed",
        status,
        diagnostic,
    )


def test_explicit_fields_and_message_fields_are_written_as_given(server):
    answer = send(
        server,
        server.send_mail(),
        {
            "Recipient": "bob@example.com",
            "BounceType": "DoesNotExist",  # with both, the explicit fields win
            "RecipientDsnFields": {
                "FinalRecipient": "robert@elsewhere.example",
                "Action": "delayed",
                "RemoteMta": "dns; mail.elsewhere.example",
                "Status": "4.2.2",
                "DiagnosticCode": "452 4.2.2 full",
                "LastAttemptDate": datetime(2026, 2, 28, 10, 0, tzinfo=UTC),
                "ExtensionFields": [{"Name": "X-Queue", "Value": "7"}],
            },
        },
        Explanation="Sorry.",
        MessageDsn={
            "ReportingMta": "dns; other.example",
            "ArrivalDate": datetime(2026, 2, 28, 9, 0, tzinfo=UTC),
            "ExtensionFields": [{"Name": "X-Reason", "Value": "over quota"}],
        },
    )
    dsn = composed(server, answer)
    assert dsn.explanation == "Sorry.\r\n"
    assert dsn.message_fields == (
        ("Reporting-MTA", "dns; other.example"),
        ("Arrival-Date", "Sat, 28 Feb 2026 09:00:00 +0000"),
        ("X-Reason", "over quota"),
    )
    assert dsn.recipients[0].fields == (
        ("Action", "delayed"),
        ("Final-Recipient", "rfc822; robert@elsewhere.example"),
        ("Remote-MTA", "dns; mail.elsewhere.example"),
        ("Diagnostic-Code", "smtp; 452 4.2.2 full"),
        ("Status", "4.2.2"),
        ("Last-Attempt-Date", "Sat, 28 Feb 2026 10:00:00 +0000"),
        ("X-Queue", "7"),
    )


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("552 5.2.2 full", "smtp; 552 5.2.2 full"),
        ("smtp; 552 5.2.2 full", "smtp; 552 5.2.2 full"),
        ("x-unix; exit 1", "x-unix; exit 1"),
        ("the mailbox is full", "X-Sendback; the mailbox is full"),
    ],
)
def test_a_diagnostic_code_gets_a_type_only_where_it_has_none(server, given, written):
    fields = {"Action": "failed", "Status": "5.2.2", "DiagnosticCode": given}
    bounced = {"Recipient": "bob@example.com", "RecipientDsnFields": fields}
    dsn = composed(server, send(server, server.send_mail(), bounced))
    assert dict(dsn.recipients[0].fields)["Diagnostic-Code"] == written


def test_explicit_fields_alone_are_all_there_is(server):
    bounced = {
        "Recipient": "bob@example.com",
        "RecipientDsnFields": {"Action": "failed", "Status": "5.0.0"},
    }
    dsn = composed(server, send(server, server.send_mail(), bounced))
    assert [name for name, _ in dsn.recipients[0].fields] == ["Action", "Final-Recipient", "Status"]


def test_several_recipients_are_one_bounce(server):
    message = server.send_mail(recipients=("bob@example.com", "eve@example.com"))
    eve = {"Recipient": "eve@example.com", "BounceType": "ExceededQuota"}
    dsn = composed(server, send(server, message, BOB, eve))
    assert [entry.final_recipient for entry in dsn.recipients] == [
        "bob@example.com",
        "eve@example.com",
    ]
    assert len(server.outbox()) == 1


def test_final_recipient_alone_may_be_the_messages(server):
    bounced = {
        "Recipient": "forwarded@elsewhere.example",
        "RecipientDsnFields": {
            "FinalRecipient": "bob@example.com",
            "Action": "failed",
            "Status": "5.1.1",
        },
    }
    assert send(server, server.send_mail(), bounced)["MessageId"]


def test_awss_own_sample(server):
    """The developer guide's Lambda example, list of extension fields empty."""
    answer = send(
        server,
        server.send_mail(),
        {"Recipient": "bob@example.com", "BounceType": "ContentRejected"},
        MessageDsn={
            "ReportingMta": "dns; example.com",
            "ArrivalDate": datetime.now(UTC),
            "ExtensionFields": [],
        },
    )
    assert composed(server, answer).message_value("Reporting-MTA") == "dns; example.com"


def test_the_sender_may_have_a_display_name(server):
    name = "Mail Delivery Subsystem <mailer-daemon@example.com>"
    answer = send(server, server.send_mail(), BounceSender=name)
    assert composed(server, answer).header_value("From") == name
    answer = send(server, server.send_mail(), BounceSender="Büro <mailer-daemon@example.com>")
    content = server.bounce(answer["MessageId"]).content
    assert email.message_from_bytes(content, policy=email.policy.SMTP)["From"] == (
        "Büro <mailer-daemon@example.com>"
    )


def test_the_senders_wishes_are_carried_into_the_bounce(server):
    message = server.send_mail(
        mail_options=("RET=HDRS", "ENVID=QQ+2B1"),
        rcpt_options=("NOTIFY=FAILURE", "ORCPT=rfc822;Bob+2Btag@Example.com"),
    )
    dsn = composed(server, send(server, message))
    assert dsn.message_value("Original-Envelope-Id") == "QQ+1"
    fields = dict(dsn.recipients[0].fields)
    assert fields["Original-Recipient"] == "rfc822; Bob+tag@Example.com"


def test_two_calls_of_the_user_are_two_bounces(server):
    message = server.send_mail()
    assert send(server, message)["MessageId"] != send(server, message)["MessageId"]
    assert len(server.outbox()) == 2


# What is refused


def test_an_unknown_message(server):
    code, status, text = refused(server, "nobody-knows-it")
    assert (code, status) == ("MessageRejected", 400)
    assert "nobody-knows-it" in text


def test_another_accounts_message_reads_exactly_like_an_unknown_one(server):
    message = server.send_mail()
    other = server.ses_of("111111111111", "eve")
    other.verify_domain_identity(Domain="other.example")
    texts = []
    for original in (message, message[:-4] + "0000"):
        with pytest.raises(ClientError) as caught:
            other.send_bounce(
                OriginalMessageId=original,
                BounceSender="mailer-daemon@other.example",
                BouncedRecipientInfoList=[BOB],
            )
        error = caught.value.response["Error"]
        texts.append((error["Code"], error["Message"].replace(original, "ID")))
    assert (
        texts[0] == texts[1] == ("MessageRejected", "Message not found: ID was not received here.")
    )


def test_the_24_hour_window(server, clock):
    message = server.send_mail()
    clock.advance(timedelta(hours=24, seconds=-1))
    assert send(server, message)["MessageId"]
    clock.advance(timedelta(seconds=2))
    code, status, text = refused(server, message)
    assert (code, status) == ("MessageRejected", 400)
    assert message in text
    assert "2026-03-02T12:00:00Z" in text


def test_an_expired_message_is_known_as_such_after_its_content_is_gone(server, clock):
    message = server.send_mail()
    clock.advance(timedelta(hours=30))
    server.run(server.app.housekeeping.sweep())
    assert "2026-03-02T12:00:00Z" in refused(server, message)[2]


def test_a_sender_that_is_not_verified(server):
    code, status, text = refused(server, server.send_mail(), BounceSender="a@other.example")
    assert (code, status) == ("MessageRejected", 400)
    assert text == (
        "Email address is not verified. The following identities failed the check in region "
        "US-EAST-1: a@other.example"
    )


def test_a_verified_address_covers_itself_and_no_other(server):
    server.ses.verify_email_identity(EmailAddress="noreply@verified.example")
    message = server.send_mail()
    assert send(server, message, BounceSender="noreply@VERIFIED.example")["MessageId"]
    assert refused(server, message, BounceSender="other@verified.example")[0] == "MessageRejected"
    assert refused(server, message, BounceSender="NoReply@verified.example")[0] == "MessageRejected"


def test_a_recipient_that_was_none_of_the_messages(server):
    bounced = {"Recipient": "eve@example.com", "BounceType": "DoesNotExist"}
    code, status, text = refused(server, server.send_mail(), bounced)
    assert (code, status) == ("MessageRejected", 400)
    assert "eve@example.com" in text


def test_a_null_reverse_path(server):
    code, status, text = refused(server, server.send_mail(sender=""))
    assert (code, status) == ("MessageRejected", 400)
    assert "null reverse-path" in text


FIELDS = {"Action": "failed", "Status": "5.1.1"}


def with_fields(**fields):
    return {"Recipient": "bob@example.com", "RecipientDsnFields": {**FIELDS, **fields}}


def with_message(**members):
    return {"MessageDsn": {"ReportingMta": "dns; x.example", **members}}


FIRST = "BouncedRecipientInfoList.member.1"


@pytest.mark.parametrize(
    ("recipient", "members", "path"),
    [
        ({"Recipient": "bob@example.com"}, {}, FIRST),
        ({"Recipient": "no address", "BounceType": "Undefined"}, {}, f"{FIRST}.Recipient"),
        (with_fields(Status="5.1"), {}, f"{FIRST}.RecipientDsnFields.Status"),
        (with_fields(Status="2.0.0"), {}, f"{FIRST}.RecipientDsnFields.Status"),
        (with_fields(Status="5.1.1 gone"), {}, f"{FIRST}.RecipientDsnFields.Status"),
        (with_fields(FinalRecipient="x y"), {}, f"{FIRST}.RecipientDsnFields.FinalRecipient"),
        (
            with_fields(FinalRecipient="rfc822; bob@example.com"),
            {},
            f"{FIRST}.RecipientDsnFields.FinalRecipient",
        ),
        (with_fields(RemoteMta="mail"), {}, f"{FIRST}.RecipientDsnFields.RemoteMta"),
        (
            with_fields(DiagnosticCode="550 a\r\nStatus: 2.0.0"),
            {},
            f"{FIRST}.RecipientDsnFields.DiagnosticCode",
        ),
        (
            with_fields(ExtensionFields=[{"Name": "X_Bad", "Value": "1"}]),
            {},
            f"{FIRST}.RecipientDsnFields.ExtensionFields.member.1",
        ),
        (BOB, {"BounceSender": "nobody"}, "BounceSender"),
        (BOB, {"BounceSender": "a@example.com\r\nBcc: eve@x.example"}, "BounceSender"),
        (BOB, {"BounceSender": "a@example.com, b@example.com"}, "BounceSender"),
        (BOB, {"BounceSender": "büro@example.com"}, "BounceSender"),
        (BOB, {"BounceSenderArn": "arn:aws:s3:::bucket"}, "BounceSenderArn"),
        (BOB, with_message(ReportingMta="x.example"), "MessageDsn.ReportingMta"),
        (BOB, with_message(ReportingMta="dns; a b"), "MessageDsn.ReportingMta"),
        (
            BOB,
            with_message(ExtensionFields=[{"Name": "X" * 51, "Value": "1"}]),
            "MessageDsn.ExtensionFields.member.1",
        ),
        (
            BOB,
            with_message(ExtensionFields=[{"Name": "X-A", "Value": "1\n2"}]),
            "MessageDsn.ExtensionFields.member.1",
        ),
        (
            BOB,
            with_message(ExtensionFields=[{"Name": "X-A", "Value": "a " * 1025}]),
            "MessageDsn.ExtensionFields.member.1",
        ),
        (
            BOB,
            with_message(ExtensionFields=[{"Name": "Reporting-MTA", "Value": "dns; x"}]),
            "MessageDsn.ExtensionFields.member.1",
        ),
    ],
)
def test_an_invalid_value_is_named_by_its_path(server, recipient, members, path):
    code, status, text = refused(server, server.send_mail(), recipient, **members)
    assert (code, status) == ("InvalidParameterValue", 400)
    assert text.startswith(f"{path}:")


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (
            {"BouncedRecipientInfoList": []},
            "1 validation error detected: Value at 'bouncedRecipientInfoList' failed to satisfy "
            "constraint: Member must have length greater than or equal to 1",
        ),
        (
            {
                "BouncedRecipientInfoList": [
                    {"Recipient": "bob@example.com", "BounceType": "Nonsense"}
                ]
            },
            "1 validation error detected: Value at "
            "'bouncedRecipientInfoList.1.member.bounceType' failed to satisfy constraint: Member "
            "must satisfy enum value set: [DoesNotExist, MessageTooLarge, ExceededQuota, "
            "ContentRejected, Undefined, TemporaryFailure]",
        ),
        (
            {"BouncedRecipientInfoList": [with_fields(Action="lost")]},
            "1 validation error detected: Value at "
            "'bouncedRecipientInfoList.1.member.recipientDsnFields.action' failed to satisfy "
            "constraint: Member must satisfy enum value set: [failed, delayed, delivered, relayed, "
            "expanded]",
        ),
    ],
)
def test_a_violation_of_the_model_is_a_validation_error_in_awss_wording(server, members, text):
    found = refused(server, server.send_mail(), **members)
    assert found == ("ValidationError", 400, text)


def test_missing_members_are_a_validation_error(server):
    client = server.ses_client(parameter_validation=False)
    with pytest.raises(ClientError) as caught:
        client.send_bounce(BounceSender=SENDER)
    error = caught.value.response["Error"]
    assert error["Code"] == "ValidationError"
    assert error["Message"].startswith("2 validation errors detected: ")


def test_the_second_call_within_the_second(running, clock):
    server = running()
    server.ses.verify_domain_identity(Domain="example.com")
    message = server.send_mail()
    assert send(server, message)["MessageId"]
    clock.advance(timedelta(milliseconds=999))
    assert refused(server, message) == ("Throttling", 400, "Rate exceeded")
    clock.advance(timedelta(milliseconds=1))
    assert send(server, message)["MessageId"]


def test_the_rate_is_each_accounts_own(running):
    server = running()
    server.ses.verify_domain_identity(Domain="example.com")
    other = server.ses_of("111111111111", "eve")
    other.verify_domain_identity(Domain="example.com")  # both receive for it
    message = server.send_mail()
    arguments = {
        "OriginalMessageId": message,
        "BounceSender": SENDER,
        "BouncedRecipientInfoList": [BOB],
    }
    assert server.ses.send_bounce(**arguments)["MessageId"]
    assert other.send_bounce(**arguments)["MessageId"]


def test_an_identity_of_another_account_without_a_policy(server):
    arn = "arn:aws:ses:us-east-1:111111111111:identity/example.com"
    found = refused(server, server.send_mail(), BounceSenderArn=arn)
    assert found == (
        "AccessDenied",
        403,
        "User `arn:aws:iam::000000000000:user/developer' is not authorized to perform "
        f"`ses:SendBounce' on resource `{arn}'",
    )


def test_an_identity_of_the_callers_own_by_its_arn(server):
    arn = "arn:aws:ses:us-east-1:000000000000:identity/example.com"
    assert send(server, server.send_mail(), BounceSenderArn=arn)["MessageId"]
    other = "arn:aws:ses:us-east-1:000000000000:identity/other.example"
    assert refused(server, server.send_mail(), BounceSenderArn=other)[0] == "InvalidParameterValue"
