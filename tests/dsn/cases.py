"""The bounces of the golden files."""

from dataclasses import replace
from datetime import UTC, datetime

from sendback.dsn import (
    REASONS,
    Action,
    Bounce,
    ExtensionField,
    MtaName,
    OriginalRecipient,
    RecipientFields,
    Report,
    ReturnedHeaders,
    ReturnedMessage,
    parse_address,
)

NOW = datetime(2015, 10, 1, 13, 48, 58, tzinfo=UTC)
ARRIVED = datetime(2015, 10, 1, 13, 48, 54, tzinfo=UTC)
HEADERS = (
    b"Return-Path: <ann@sender.test>\r\n"
    b"Received: from mx.sender.test (unknown [192.0.2.1])\r\n"
    b" by mx.example.net with SMTP id 06h112p\r\n"
    b" for userunknown@example.net;\r\n"
    b" Thu, 01 Oct 2015 13:48:54 +0000 (UTC)\r\n"
    b"From: Ann <ann@sender.test>\r\n"
    b"To: userunknown@example.net\r\n"
    b"Subject: Lunch\r\n"
    b"Message-ID: <lunch@sender.test>\r\n"
)


def recipient(address: str = "userunknown@example.net", reason: str = "DoesNotExist", **fields):
    values = {
        "final_recipient": parse_address(address),
        "action": Action.FAILED,
        "status": REASONS[reason].status,
        "diagnostic_code": REASONS[reason].diagnostic_code,
        "last_attempt_date": NOW,
        **fields,
    }
    return RecipientFields(**values)


def bounce(*recipients: RecipientFields, **fields) -> Bounce:
    report = Report(
        reporting_mta=fields.pop("reporting_mta", MtaName("dns", "mx.example.net")),
        recipients=recipients or (recipient(),),
        original_envelope_id=fields.pop("original_envelope_id", None),
        arrival_date=fields.pop("arrival_date", ARRIVED),
        extension_fields=fields.pop("extension_fields", ()),
    )
    values = {
        "sender": "postmaster@example.net",
        "to": parse_address("ann@sender.test"),
        "date": NOW,
        "message_id": "0100015023a9bde3-1@mx.example.net",
        "report": report,
        "in_reply_to": "<lunch@sender.test>",
        "returned": ReturnedHeaders(HEADERS),
        **fields,
    }
    return Bounce(**values)


_ALL_FIELDS = RecipientFields(
    final_recipient=parse_address("final@example.net"),
    action=Action.DELAYED,
    status="4.2.2",
    original_recipient=OriginalRecipient("rfc822", "Bob+tag@Example.net"),
    remote_mta=MtaName("dns", "mail.example.org"),
    diagnostic_code="smtp; 452 4.2.2 The mailbox is over its quota",
    last_attempt_date=NOW,
    will_retry_until=datetime(2015, 10, 6, 13, 48, 54, tzinfo=UTC),
    extension_fields=(ExtensionField("X-Queue-ID", "4F2A"),),
)
_WORDS = " ".join(["a-long-word-of-its-own"] * 88)

CASES: dict[str, Bounce] = {
    # What SES was given when it wrote the bounces that were recorded in 2015.
    "ses-recorded-form": bounce(
        recipient(
            original_recipient=OriginalRecipient("rfc822", "userunknown@example.net"),
            last_attempt_date=None,
        ),
        reporting_mta=MtaName("dns", "inbound-smtp.us-west-2.amazonaws.com"),
        explanation="This message could not be delivered.",
        message_id="0000015023a9bde3-x-000000@us-west-2.amazonses.com",
        in_reply_to=None,
    ),
    "one-recipient": bounce(),
    "three-recipients-mixed-actions": bounce(
        recipient(),
        recipient("full@example.net", "ExceededQuota"),
        recipient(
            "later@example.net", action=Action.DELIVERED, status="2.1.5", diagnostic_code=None
        ),
    ),
    **{f"reason-{name.lower()}": bounce(recipient(reason=name)) for name in REASONS},
    "all-fields": bounce(
        _ALL_FIELDS,
        original_envelope_id="QQ314159",
        extension_fields=(ExtensionField("X-Reason", "over quota"),),
        sender="Mail Delivery Subsystem <mailer-daemon@example.net>",
        explanation="Dear Ann,\n\nBob's mailbox is full.\r\nTry again tomorrow.",
    ),
    "non-ascii-local-part": bounce(
        recipient("büb@example.net"), to=parse_address("änn@sender.test")
    ),
    "non-ascii-domain": bounce(recipient("bob@exämple.net"), to=parse_address("ann@sänder.test")),
    "non-ascii-explanation": bounce(explanation="Grüße!\nDas Postfach ist voll. 受信できません。"),
    "8-bit-header": bounce(
        returned=ReturnedHeaders(HEADERS + "Subject: Grüße\r\n".encode("latin-1"))
    ),
    "envid-and-orcpt": bounce(
        recipient(original_recipient=OriginalRecipient("rfc822", "UserUnknown@Example.net")),
        original_envelope_id="a b=c",
    ),
    "no-message-id": bounce(in_reply_to=None),
    "garbage-without-headers": bounce(returned=ReturnedHeaders(b""), in_reply_to=None),
    "extension-of-2048-characters": bounce(
        recipient(extension_fields=(ExtensionField("X-Long", _WORDS[:2048].strip()),))
    ),
    "lines-too-long-for-mail": bounce(
        returned=ReturnedHeaders(b"X-Long: " + b"x" * 2000 + b"\r\n"), explanation="y" * 2000
    ),
    "return-full-small": bounce(returned=ReturnedMessage(HEADERS + b"\r\nHello,\r\n.\r\nAnn\r\n")),
    "return-full-empty-body": bounce(returned=ReturnedMessage(HEADERS + b"\r\n")),
    "return-full-8-bit": bounce(returned=ReturnedMessage(HEADERS + "\r\nGrüße\r\n".encode())),
    "return-full-boundary-like-line": bounce(
        returned=ReturnedMessage(
            HEADERS + b"\r\n--b-1\r\nContent-Type: text/html\r\n\r\nx\r\n--b-1--\r\n"
        )
    ),
    "return-full-without-last-line-end": bounce(returned=ReturnedMessage(HEADERS + b"\r\nx")),
    "other-boundary": replace(bounce(), explanation="--b-1\n--b-1--"),
}
