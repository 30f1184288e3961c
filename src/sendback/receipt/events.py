"""Notifications and function events. SES developer guide, "Notification contents", "Lambda event".

Every value that comes from the mail is text here, whatever it is made of: header octets that are no
UTF-8 become U+FFFD.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from email.utils import formataddr, getaddresses
from typing import Any

from sendback.mail.headers import field_values, header_fields, unfolded
from sendback.receipt.model import (
    ACTION_TYPES,
    Action,
    BounceAction,
    ConnectAction,
    Encoding,
    LambdaAction,
    S3Action,
    SNSAction,
    StopAction,
    WorkmailAction,
)
from sendback.receipt.verdicts import Verdict, Verdicts

SUBJECT = "Amazon SES Email Receipt Notification"
MAX_HEADER_OCTETS = 10 * 1024  # of headers in a notification
MAX_CONTENT_OCTETS = 150 * 1024  # of content in a notification

_ENCODED_WORD = re.compile(
    r"(=\?[!->@-~]+\?[bBqQ]\?[!->@-~]*\?=)(?:\s+(?==\?[!->@-~]+\?[bBqQ]\?))?"
)
_LISTS = {"from": "From", "to": "To", "cc": "Cc", "bcc": "Bcc", "replyTo": "Reply-To"}


@dataclass(frozen=True, slots=True)
class MailView:
    """A message as events describe it. `header` is the published header section."""

    message_id: str
    received_at: datetime
    source: str
    destination: tuple[str, ...]
    header: bytes


@dataclass(frozen=True, slots=True)
class ReceiptView:
    """How it was received, for one action: `recipients` are those that the rule matched."""

    processed_at: datetime
    recipients: tuple[str, ...]
    verdicts: Verdicts
    scanned: bool
    action: Action
    object_key: str | None = None


def notification(mail: MailView, receipt: ReceiptView, content: bytes | None = None) -> str:
    """The JSON that a topic gets; with `content` for an SNS action."""
    value: dict[str, Any] = {
        "notificationType": "Received",
        "mail": _mail(mail),
        "receipt": _receipt(mail, receipt),
    }
    if content is not None:
        value["content"] = _content(content, receipt.action)
    return json.dumps(value, ensure_ascii=False)


def function_event(mail: MailView, receipt: ReceiptView) -> str:
    """The JSON that a function gets."""
    ses = {"mail": _mail(mail), "receipt": _receipt(mail, receipt)}
    record = {"eventSource": "aws:ses", "eventVersion": "1.0", "ses": ses}
    return json.dumps({"Records": [record]}, ensure_ascii=False)


def object_key(action: S3Action, message_id: str) -> str:
    """The prefix and the message ID, a `/` between them unless the prefix ends in one."""
    prefix = action.object_key_prefix
    if not prefix:
        return message_id
    return prefix + message_id if prefix.endswith("/") else f"{prefix}/{message_id}"


def _content(content: bytes, action: Action) -> str:
    if isinstance(action, SNSAction) and action.encoding is Encoding.BASE64:
        return base64.b64encode(content).decode("ascii")
    return content.decode("utf-8", "replace")


def _mail(mail: MailView) -> dict[str, Any]:
    headers, truncated = _headers(mail.header)
    return {
        "timestamp": _timestamp(mail.received_at),
        "source": mail.source,
        "messageId": mail.message_id,
        "destination": list(mail.destination),
        "headersTruncated": truncated,
        "headers": headers,
        "commonHeaders": _common(mail),
    }


def _headers(header: bytes) -> tuple[list[dict[str, str]], bool]:
    """Whole fields, as many as fit in 10 KB."""
    headers: list[dict[str, str]] = []
    octets = 0
    for name, raw in header_fields(header):
        octets += len(raw)
        if octets > MAX_HEADER_OCTETS:
            return headers, True
        value = unfolded(raw.partition(b":")[2])
        headers.append({"name": _text(name), "value": _text(value)})
    return headers, False


def _common(mail: MailView) -> dict[str, Any]:
    """Fields that are there; encoded words (RFC 2047) are decoded."""
    common: dict[str, Any] = {"returnPath": mail.source}
    for key, name in _LISTS.items():
        values = field_values(mail.header, name)
        if values:
            common[key] = _addresses(values)
    for key, name in (("date", "Date"), ("messageId", "Message-ID"), ("subject", "Subject")):
        values = field_values(mail.header, name)
        if values:
            common[key] = _decoded(_text(values[0]))
    sender = field_values(mail.header, "Sender")
    if sender:
        common["sender"] = _decoded(_text(sender[0]))
    return common


def _addresses(values: Sequence[bytes]) -> list[str]:
    """Each address of the field as one text; what is none, as it stands."""
    texts = [_text(value) for value in values]
    found = [pair for pair in getaddresses(texts) if pair[1]]
    if not found:
        return texts
    return [_mailbox(_decoded(name), address) for name, address in found]


def _mailbox(name: str, address: str) -> str:
    if name.isascii() and address.isascii():
        return formataddr((name, address))
    # formataddr would encode what was just decoded.
    return f"{name} <{address}>" if name else address


def _decoded(text: str) -> str:
    """Encoded words (RFC 2047) decoded, all else untouched; white space between two goes (§6.2)."""
    return _ENCODED_WORD.sub(_decoded_word, text)


def _decoded_word(match: re.Match[str]) -> str:
    try:
        return str(make_header(decode_header(match[1])))
    except (ValueError, LookupError):  # UnicodeError is a ValueError; LookupError: no such charset
        return match[0]


def _receipt(mail: MailView, receipt: ReceiptView) -> dict[str, Any]:
    statuses = receipt.verdicts.statuses(scanned=receipt.scanned)
    passed = receipt.processed_at - mail.received_at
    value: dict[str, Any] = {
        "timestamp": _timestamp(mail.received_at),
        "processingTimeMillis": max(0, passed // timedelta(milliseconds=1)),
        "recipients": list(receipt.recipients),
        **{name: {"status": verdict.value} for name, verdict in statuses.items()},
    }
    if statuses["dmarcVerdict"] is Verdict.FAIL and receipt.verdicts.dmarc.policy:
        value["dmarcPolicy"] = receipt.verdicts.dmarc.policy
    value["action"] = _action(receipt)
    return value


def _action(receipt: ReceiptView) -> dict[str, Any]:
    action = receipt.action
    value: dict[str, Any] = {"type": ACTION_TYPES[type(action)]}
    if action.topic_arn:
        value["topicArn"] = action.topic_arn
    members = _MEMBERS.get(type(action), {})
    value |= {name: getattr(action, field) for name, field in members.items()}
    match action:
        case S3Action():
            value["objectKeyPrefix"] = action.object_key_prefix or ""
            value["objectKey"] = receipt.object_key
        case SNSAction():
            value["encoding"] = "BASE64" if action.encoding is Encoding.BASE64 else "UTF8"
        case StopAction():
            value["scope"] = "RuleSet"
        case _:
            pass
    return value


# SES developer guide, "Notification contents": the action object.
_MEMBERS: dict[type[Action], dict[str, str]] = {
    S3Action: {"bucketName": "bucket_name"},
    LambdaAction: {"functionArn": "function_arn", "invocationType": "invocation_type"},
    BounceAction: {
        "smtpReplyCode": "smtp_reply_code",
        "statusCode": "status_code",
        "message": "message",
        "sender": "sender",
    },
    WorkmailAction: {"organizationArn": "organization_arn"},
    ConnectAction: {"instanceARN": "instance_arn"},
}


def _timestamp(moment: datetime) -> str:
    """ISO 8601 with milliseconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
