"""Reading header fields of mail that may be anything, without changing an octet of it.

The standard library's parser builds and re-folds; a bounce returns the stored bytes as they
are, so this module only cuts and looks.
"""

import re
from collections.abc import Iterator
from datetime import datetime

from sendback.mail.dates import format_date
from sendback.mail.envelope import Envelope

# RFC 5322 §2.2: printable ASCII but the colon; obsolete white space before it is seen too.
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_FIELD_START = re.compile(rb"\r\n(?![ \t])")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_MESSAGE_ID = re.compile(rb"<[!#-;=?A-~]{1,450}@[!#-;=?A-Z\[\]^-~]{1,450}>")
_HELO = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")


def header_section(content: bytes) -> bytes:
    """The header section with its last CRLF; empty when the mail has none.

    Ends at the empty line (RFC 5322 §2.1) or, in a broken mail, before the first line that is
    neither a field nor a continuation.
    """
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    head = content[: end + 2] if end >= 0 else content
    position = 0
    for line in _logical_lines(head):
        if not _FIELD.match(line):
            return head[:position]
        position += len(line)
    return head


def _logical_lines(head: bytes) -> Iterator[bytes]:
    start = 0
    for match in _FIELD_START.finditer(head):
        yield head[start : match.end()]
        start = match.end()
    if start < len(head):
        yield head[start:]


def field_values(head: bytes, name: str) -> list[bytes]:
    """The unfolded, stripped values of every field called `name`, in order."""
    wanted = name.lower().encode("ascii")
    values = []
    for line in _logical_lines(head):
        match = _FIELD.match(line)
        if match and match[1].lower() == wanted:
            values.append(_FOLD.sub(b"", line[match.end() :]).strip())
    return values


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
