"""Notifications and function events. SES developer guide, "Notification contents", "Lambda event".

Every mail must have an event: otherwise mail could bypass the function that should stop it. So
nothing here raises for the content of a header. Invalid UTF-8 in a header becomes U+FFFD,
characters that are not interchangeable are escaped, and a limited part of each field is read.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from sendback.mail.address_lists import ListedAddress, read_address_list
from sendback.mail.charsets import NOT_INTERCHANGEABLE
from sendback.mail.encoded_words import decode_words
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

# Of all fields of one name in commonHeaders, enough for a thousand addresses; the rest is omitted.
MAX_COMMON_OCTETS = 64 * 1024

# RFC 5322 §3.2.3: in a display name these need quotes.
_SPECIAL = re.compile(r'[][\\()<>@,:;".]')
_ESCAPED_IN_QUOTES = re.compile(r'(["\\])')
_LISTS = {"from": "From", "to": "To", "cc": "Cc", "bcc": "Bcc", "replyTo": "Reply-To"}
_TEXTS = {"date": "Date", "messageId": "Message-ID", "subject": "Subject", "sender": "Sender"}


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
    """The processing of a message by one action: `recipients` are those that the rule matched."""

    processed_at: datetime
    recipients: tuple[str, ...]
    verdicts: Verdicts
    scanned: bool
    action: Action
    object_key: str | None = None


def notification(mail: MailView, receipt: ReceiptView, content: bytes | None = None) -> str:
    """Return the JSON for a topic; `content` is given for an SNS action."""
    value: dict[str, Any] = {
        "notificationType": "Received",
        "mail": _mail(mail),
        "receipt": _receipt(mail, receipt),
    }
    if content is not None:
        value["content"] = _content(content, receipt.action)
    return _json(value)


def function_event(mail: MailView, receipt: ReceiptView) -> str:
    """Return the JSON for a function."""
    ses = {"mail": _mail(mail), "receipt": _receipt(mail, receipt)}
    record = {"eventSource": "aws:ses", "eventVersion": "1.0", "ses": ses}
    return _json({"Records": [record]})


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return NOT_INTERCHANGEABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def object_key(action: S3Action, message_id: str) -> str:
    """Return prefix and message ID, with a `/` between them unless the prefix ends in one."""
    prefix = action.object_key_prefix
    if not prefix:
        return message_id
    return prefix + message_id if prefix.endswith("/") else f"{prefix}/{message_id}"


def _content(content: bytes, action: Action) -> str:
    if isinstance(action, SNSAction) and action.encoding is Encoding.BASE64:
        return base64.b64encode(content).decode("ascii")
    return content.decode("utf-8", "replace")


@lru_cache(maxsize=8)  # the actions of a message have it in common; reading it may take long
def _mail(mail: MailView) -> Mapping[str, Any]:
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
    """Return the present, non-empty fields, with encoded words (RFC 2047) decoded."""
    common: dict[str, Any] = {"returnPath": mail.source}
    for key, name in _LISTS.items():
        values = _bounded(field_values(mail.header, name))
        addresses = [address for value in values for address in _addresses(value)]
        if addresses:
            common[key] = addresses
    for key, name in _TEXTS.items():
        for value in _bounded(field_values(mail.header, name)[:1]):
            common[key] = decode_words(_text(value))
    return common


def _bounded(values: Sequence[bytes]) -> Iterator[bytes]:
    left = MAX_COMMON_OCTETS
    for value in values:
        if left <= 0:
            return
        yield value[:left]
        left -= len(value) + 1


def _addresses(value: bytes) -> list[str]:
    """Return each address of a field as one text.

    A field without an address (`undisclosed-recipients:;`) is returned unchanged, unless empty.
    """
    text = _text(value)
    entries = read_address_list(text)
    if any("@" in entry.address for entry in entries):
        return [_mailbox(entry) for entry in entries]
    return [decode_words(text)] if text.strip("<>,; \t") else []


def _mailbox(entry: ListedAddress) -> str:
    name = decode_words(entry.name) if entry.name else ""
    if not name:
        return entry.address
    if name.isascii() and _SPECIAL.search(name):
        name = '"' + _ESCAPED_IN_QUOTES.sub(r"\\\1", name) + '"'
    return f"{name} <{entry.address}>"


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
    """Return a time in ISO 8601 with milliseconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
