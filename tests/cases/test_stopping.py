"""A function that stops the rule set is a filter: no mail gets by it."""

import smtplib
import time

import pytest

from tests.cases.receiver import read_case

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:filter"
SETUP = f"""
identities = ["example.com"]
active_rule_set = "main"
buckets = {{ mail = "directory:bucket" }}
functions = {{ "{FUNCTION}" = "python:filter.py:handler" }}
[[rule_sets.main.rules]]
Name = "filter"
Actions = [
  {{ LambdaAction = {{ FunctionArn = "{FUNCTION}", InvocationType = "RequestResponse" }} }},
]
[[rule_sets.main.rules]]
Name = "behind"
Actions = [
  {{ S3Action = {{ BucketName = "mail" }} }},
  {{ BounceAction = {{ SmtpReplyCode = "550", Message = "no", Sender = "m@example.com" }} }},
]
"""
# It reads all of the event, so that an event that is no JSON stops nothing.
HANDLER = """
def handler(event, context):
    mail = event["Records"][0]["ses"]["mail"]
    texts = [header["value"] for header in mail["headers"]] + [str(mail["commonHeaders"])]
    for text in texts:
        text.encode("utf-8")
    return {"disposition": "STOP_RULE_SET"}
"""
FROM = b"From: ann@sender.example\r\n"
HOSTILE = {
    "nothing": b"",
    "no header": b"\r\nhello",
    "no body": FROM,
    "From of @": b"From: " + b"@" * 60_000 + b"\r\n\r\nhi",
    "From of (": b"From: " + b"(" * 60_000 + b"\r\n\r\nhi",
    "From of quotes": b"From: " + b'"' * 60_001 + b"\r\n\r\nhi",
    "From of groups": b"From: " + b"a:" * 30_000 + b"\r\n\r\nhi",
    "To of commas": FROM + b"To: " + b"," * 60_000 + b"\r\n\r\nhi",
    "NUL": FROM + b"Subject: a\0b\r\n\r\n\0",
    "a lone surrogate in UTF-8": FROM + b"Subject: \xed\xa0\x80\r\n\r\nhi",
    "a lone surrogate in UTF-16": FROM + b"Subject: =?utf-16be?b?2AA=?=\r\n\r\nhi",
    "a lone surrogate in UTF-7": FROM + b"Subject: =?utf-7?q?+2AA-?=\r\n\r\nhi",
    "punycode": FROM + b"Subject: =?punycode?q?" + b"a" * 60_000 + b"-9?=\r\n\r\nhi",
    "a charset that is none": FROM + b"From: =?zlib?b?eJwDAAAAAAE=?= <a@b.c>\r\n\r\nhi",
    "octets that are no text": bytes(range(1, 10)) + bytes(range(128, 256)) + b": x\r\n\r\nhi",
    "lines that are no fields": b"x\r\n" * 5_000 + FROM + b"\r\nhi",
    "a first line with a blank": b" " + FROM + b"\r\nhi",
    "20,000 fields": FROM + b"A: b\r\n" * 20_000 + b"\r\nhi",
    "dates": FROM + b"Date: Mon, 99 Foo 99999999999 99:99:99 +9999999\r\n\r\nhi",
    "U+FFFF and U+FEFF": FROM + "Subject: \uffff\ufeff\u2028\r\n\r\nhi".encode(),
    "boundaries": FROM
    + b'Content-Type: multipart/mixed; boundary="'
    + b"-" * 60_000
    + b'"\r\n\r\n',
    "nested comments": FROM + b"Message-ID: " + b"(" * 30_000 + b")" * 30_000 + b"\r\n\r\nhi",
}
CASES = ["first-line-space/mail.eml"]


@pytest.fixture
def server(running):
    started = running(send_bounce_rate="0", dns="off")
    (started.settings.data_dir / "filter.py").write_text(HANDLER)
    started.set_up(SETUP)
    return started


def test_no_hostile_mail_gets_by_a_function_that_stops(server):
    mails = {**HOSTILE, **{name: read_case(name) for name in CASES}}
    kept = {name: _send(server.smtp_port, content) for name, content in mails.items()}
    for name, message_id in kept.items():
        (step,) = _steps(server, message_id)
        assert (step.outcome.value, step.disposition.value) == ("done", "STOP_RULE_SET"), name
    assert len(kept) >= 20
    assert not list(server.settings.data_dir.glob("bucket/*"))
    assert server.outbox() == []


def _send(port, content):
    with smtplib.SMTP("127.0.0.1", port, local_hostname="mx.x") as smtp:
        smtp.ehlo()
        smtp.mail("ann@sender.example")
        assert smtp.rcpt("bob@example.com")[0] == 250
        code, text = smtp.data(content)
    assert code == 250, text
    return text.decode().split()[1]


def _steps(server, message_id):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        steps = server.steps(message_id, until_done=False)
        if steps:
            return server.steps(message_id)
        time.sleep(0.05)
    raise AssertionError(f"{message_id} was not worked on")
