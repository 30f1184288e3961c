"""A message as it was kept, and what actions see of it: for golden files."""

from datetime import UTC, datetime

from sendback.receipt.added_headers import Arrival, published_header
from sendback.receipt.events import MailView, ReceiptView
from sendback.receipt.model import (
    AddHeaderAction,
    BounceAction,
    ConnectAction,
    Encoding,
    InvocationType,
    LambdaAction,
    S3Action,
    SNSAction,
    StopAction,
    WorkmailAction,
)
from sendback.receipt.verdicts import DkimResult, DmarcResult, SpfResult, Verdict, Verdicts

RECEIVED = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
PROCESSED = datetime(2026, 3, 1, 12, 0, 1, 0, tzinfo=UTC)
MESSAGE_ID = "o3vrnil0e2ic28trm7dfhrc2v0clambda4nbp0g1"
TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:check"

ARRIVAL = Arrival(
    MESSAGE_ID, "mx.example.com", "192.0.2.7", "mx.sender.example", "ann@sender.example"
)
TRACE = (
    b"Return-Path: <ann@sender.example>\r\n"
    b"Received: from mx.sender.example (unknown [192.0.2.7])\r\n"
    b" by mx.example.com with SMTP id " + MESSAGE_ID.encode() + b"\r\n"
    b" for bob@example.com;\r\n"
    b" Sun, 01 Mar 2026 12:00:00 +0000 (UTC)\r\n"
)
PLAIN = (
    b"From: Ann Sender <ann@sender.example>\r\n"
    b'To: bob@example.com, "Smith, Carol" <carol@example.com>\r\n'
    b"Cc: dan@example.com\r\n"
    b"Reply-To: ann+replies@sender.example\r\n"
    b"Date: Sun, 1 Mar 2026 13:00:00 +0100\r\n"
    b"Subject: Lunch\r\n"
    b"  on Friday?\r\n"
    b"Message-ID: <lunch@sender.example>\r\n"
)
HOSTILE = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@sender.example>\r\n"
    b"Sender: robot@sender.example\r\n"
    b"Subject: =?utf-8?b?RnJ1aHN0w7xjaw==?= \xff\xfe\r\n"
    b"Authentication-Results: mx.example.com; dmarc=pass header.from=bank.example\r\n"
    b"Authentication-Results: mx.sender.example; spf=pass\r\n"
    b"X-SES-Spam-Verdict: PASS\r\n"
    b"X-SES-RECEIPT: forged\r\n"
    b"To: undisclosed-recipients:;\r\n"
    b"X-Broken: =?nonsense?x?y?=\r\n"
)

PASSED = Verdicts(
    spf=SpfResult("pass", "sender.example"),
    dkim=(DkimResult("pass", "sender.example", "s1"),),
    dmarc=DmarcResult("pass", "sender.example", "reject"),
    spam=Verdict.PASS,
    virus=Verdict.PASS,
)
FAILED = Verdicts(
    spf=SpfResult("softfail", "sender.example"),
    dkim=(DkimResult("fail", "sender.example", "s1"), DkimResult("permerror", "x\r\nEvil: y", "")),
    dmarc=DmarcResult("fail", "sender.example", "quarantine"),
)
UNKNOWN = Verdicts(
    spf=SpfResult("temperror", "sender.example"), dmarc=DmarcResult("temperror", "sender.example")
)
DISABLED = Verdicts(authentication_disabled=True)

HEADERS = {
    "plain-scanned": published_header(TRACE + PLAIN, ARRIVAL, PASSED, scanned=True),
    "failed-with-added-headers": published_header(
        TRACE + PLAIN,
        ARRIVAL,
        FAILED,
        [AddHeaderAction("X-Team", "support"), AddHeaderAction("X-Note", "Grüße")],
        scanned=False,
    ),
    "forged-results-are-left-out": published_header(
        TRACE + HOSTILE, ARRIVAL, UNKNOWN, scanned=False
    ),
    "without-lookups": published_header(TRACE + PLAIN, ARRIVAL, DISABLED, scanned=True),
}


def mail(header):
    return MailView(
        MESSAGE_ID, RECEIVED, "ann@sender.example", ("bob@example.com", "carol@example.com"), header
    )


def receipt(action, verdicts=PASSED, *, scanned=True, key=None):
    return ReceiptView(PROCESSED, ("bob@example.com",), verdicts, scanned, action, key)


ACTIONS = {
    "s3": receipt(S3Action("mail", "in", TOPIC), key=f"in/{MESSAGE_ID}"),
    "sns": receipt(SNSAction(TOPIC)),
    "sns-base64": receipt(SNSAction(TOPIC, Encoding.BASE64)),
    "lambda": receipt(LambdaAction(FUNCTION, InvocationType.REQUEST_RESPONSE, TOPIC)),
    "bounce": receipt(
        BounceAction("550", "Mailbox does not exist", "m@example.com", "5.1.1", TOPIC)
    ),
    "stop": receipt(StopAction(TOPIC)),
    "workmail": receipt(WorkmailAction("arn:aws:workmail:us-east-1:0:organization/m-1", TOPIC)),
    "connect": receipt(ConnectAction("arn:aws:connect:us-east-1:0:instance/i", "role")),
}
