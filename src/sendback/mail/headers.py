"""Reading header fields of mail that may be anything, without changing an octet of it.

The standard library's parser builds and re-folds; a bounce returns the stored bytes as they
are, so this module only cuts and looks.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache

from sendback.mail.dates import format_date
from sendback.mail.envelope import Envelope

# RFC 5322 §2.2: a name is printable ASCII but the colon; obsolete white space before the colon is
# seen too. Possessive repeats: hostile headers cost one pass and no backtracking.
_NAME = rb"[!-9;-~]+[ \t]*:"
_VALUE = rb"[^\r\n]*(?:\r\n[ \t][^\r\n]*)*+"
_FIELD_START = re.compile(_NAME)
_FIELDS = re.compile(rb"(?:" + _NAME + _VALUE + rb"\r\n)*+")
_FIELD = re.compile(rb"(" + _NAME + rb")" + _VALUE + rb"\r\n")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_MESSAGE_ID = re.compile(rb"<[!#-;=?A-~]{1,450}@[!#-;=?A-Z\[\]^-~]{1,450}>")
_HELO = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")


def header_section(content: bytes) -> bytes:
    """The header section with its last CRLF; empty when the mail has none.

    Ends at the empty line (RFC 5322 §2.1) or, in a broken mail, before the first line that is
    neither a field nor a continuation.
    """
    match = _FIELDS.match(content)
    return match[0] if match else b""


def is_cut_off(beginning: bytes, header: bytes) -> bool:
    """Whether `beginning`, the first part of a longer mail, ends inside its header section."""
    rest = beginning[len(header) :]
    return b"\r\n" not in rest or _FIELD_START.match(rest) is not None


@lru_cache(maxsize=64)
def _field(name: str) -> re.Pattern[bytes]:
    escaped = re.escape(name.encode("ascii"))
    return re.compile(rb"(?:\A|\r\n)" + escaped + rb"[ \t]*:(" + _VALUE + rb")", re.IGNORECASE)


def field_values(head: bytes, name: str) -> list[bytes]:
    """The unfolded, stripped values of every field called `name`, in order."""
    return [unfolded(match[1]) for match in _field(name).finditer(head)]


def unfolded(value: bytes) -> bytes:
    """A field's value without folds and the white space around it (RFC 5322 §2.2.3)."""
    return _FOLD.sub(b"", value).strip()


def header_fields(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each field of a header section: its name, and all its octets with the last CRLF."""
    for match in _FIELD.finditer(head):
        yield match[1][:-1].rstrip(b" \t"), match[0]


def message_id(head: bytes) -> str | None:
    """The Message-ID when there is exactly one and it is `<left@right>`, else None.

    It comes from outside and goes into headers of ours: anything else is an injection path.
    """
    values = field_values(head, "Message-ID")
    if len(values) == 1 and _MESSAGE_ID.fullmatch(values[0]):
        return values[0].decode("ascii")
    return None


def trace_fields(envelope: Envelope, message_id: str, hostname: str, now: datetime) -> bytes:
    """`Return-Path` and `Received`, which go on top of what is kept (RFC 5321 §4.4).

    In the form of recorded SES mail. A HELO name that is no host name is left out: it is text
    of a stranger's choosing in a header of ours.
    """
    client = envelope.client
    helo = client.helo if _HELO.fullmatch(client.helo) else "unknown"
    lines = [
        f"Return-Path: <{envelope.reverse_path}>",
        f"Received: from {helo} (unknown [{client.ip}])",
        f" by {hostname} with SMTP id {message_id}",
    ]
    if len(envelope.recipients) == 1:
        lines.append(f" for {envelope.recipients[0].address};")
    else:
        lines[-1] += ";"
    lines.append(f" {format_date(now)} (UTC)")
    return "".join(line + "\r\n" for line in lines).encode()


def split_trace(kept: bytes) -> tuple[bytes, bytes]:
    """The two fields of `trace_fields` at the top of what is kept, and what the mail came with."""
    fields = _FIELD.finditer(kept)
    next(fields)
    end = next(fields).end()
    return kept[:end], kept[end:]
