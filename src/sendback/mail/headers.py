"""Read the header section of mail that may be anything.

One reading for everybody. `read_header` reads the header section once, when a message is received,
and makes it well-formed: fields and their continuations, nothing else. What is stored is that
section, so that events, verdicts, rules, bounces and every reader of a stored object see the same
fields. Common readers differ on three things, and none of them is left:

- A line that is no field and no continuation of one. Some readers end the header there, some read
  on. If another field stands behind it before the empty line, it is kept as the value of a field
  `X-Malformed-Line`; else it is the first line of the body, and an empty line is put before it.
- A first line that begins with a blank. It would continue whatever field is put before it, such as
  this server's own trace. It becomes an `X-Malformed-Line` too.
- Blanks before the colon (RFC 5322 §4.5, obsolete). They are removed.

All other octets are kept. The functions below `read_header` expect a section that it has read.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sendback.mail.dates import format_date
from sendback.mail.envelope import Envelope

# RFC 5322 §2.2: a name is printable ASCII but the colon; obsolete white space before the colon is
# seen too. Possessive repeats: hostile headers cost one pass and no backtracking.
_NAME = rb"[!-9;-~]+[ \t]*:"
_VALUE = rb"[^\r\n]*(?:\r\n[ \t][^\r\n]*)*+"
_FIELDS = re.compile(rb"(?:[!-9;-~]+:" + _VALUE + rb"\r\n)*+")
_FIELD = re.compile(rb"(" + _NAME + rb")" + _VALUE + rb"\r\n")
_FIELD_START = re.compile(_NAME)
_BEHIND_NAME = re.compile(rb"[ \t]*:(" + _VALUE + rb")")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_MESSAGE_ID = re.compile(rb"<[!#-;=?A-~]{1,450}@[!#-;=?A-Z\[\]^-~]{1,450}>")
_HELO = re.compile(r"[A-Za-z0-9.:_\[\]-]{1,255}")
_BLANKS = (b" ", b"\t")
MALFORMED = b"X-Malformed-Line"


@dataclass(frozen=True, slots=True)
class HeaderReading:
    """A header section as it was read.

    `header` is well-formed, each field ended by CRLF. It was made of the first `octets` octets of
    the mail. `gap` is what has to be put between it and the rest of the mail: nothing, or the empty
    line that the mail lacks.
    """

    header: bytes
    octets: int
    gap: bytes = b""


def read_header(beginning: bytes, *, is_whole: bool) -> HeaderReading | None:
    """Read the header section of a mail that begins with these octets, lines ended by CRLF.

    `is_whole`: there is nothing behind them. Return None when the section does not end within them.
    """
    match = _FIELDS.match(beginning)
    end = match.end() if match else 0
    if beginning.startswith(b"\r\n", end) or (is_whole and end == len(beginning)):
        return HeaderReading(beginning[:end], end)
    return _read_malformed(beginning, is_whole=is_whole)


def _read_malformed(beginning: bytes, *, is_whole: bool) -> HeaderReading | None:
    lines, ends_here = _header_lines(beginning, is_whole=is_whole)
    starts = [_FIELD_START.match(line) for line in lines]
    last_field = max((number for number, start in enumerate(starts) if start), default=-1)
    body = _next_stray(lines, last_field + 1)
    if body is None and not ends_here:
        return None
    octets = min(sum(map(len, lines[:body])), len(beginning))
    header = b"".join(_well_formed(lines[:body], starts))
    return HeaderReading(header, octets, b"" if body is None else b"\r\n")


def _header_lines(beginning: bytes, *, is_whole: bool) -> tuple[list[bytes], bool]:
    """Return the lines before the first empty one, each with its CRLF, and whether they are all.

    A last line without CRLF may go on behind `beginning`: it is left out unless that is whole.
    """
    if beginning.startswith(b"\r\n"):
        return [], True
    section, separator, _ = beginning.partition(b"\r\n\r\n")
    lines = section.split(b"\r\n")
    if not separator and not (is_whole and lines[-1]):
        lines.pop()
    return [line + b"\r\n" for line in lines], bool(separator) or is_whole


def _next_stray(lines: Sequence[bytes], start: int) -> int | None:
    """Return the number of the first line from `start` on that continues nothing."""
    numbers = range(start, len(lines))
    return next((n for n in numbers if n == 0 or lines[n][:1] not in _BLANKS), None)


def _well_formed(
    lines: Sequence[bytes], starts: Sequence[re.Match[bytes] | None]
) -> Iterator[bytes]:
    for number, line in enumerate(lines):
        start = starts[number]
        is_continuation = line[:1] in _BLANKS
        if start:
            yield start[0][:-1].rstrip(b" \t") + b":" + line[start.end() :]
        elif not is_continuation:
            yield MALFORMED + b": " + line
        else:
            yield line if number else MALFORMED + b":" + line


def header_section(content: bytes) -> bytes:
    """Return the well-formed fields at the beginning of `content`, with the last CRLF."""
    match = _FIELDS.match(content)
    return match[0] if match else b""


def _values(head: bytes, name: str) -> Iterator[bytes]:
    """Yield what stands behind the colon of every field called `name`, folds included.

    A pattern that ignores case looks at each octet; `lower` and `find` take a tenth of the time for
    a header section that is large.
    """
    lowered, wanted = head.lower(), name.lower().encode("ascii")
    position = 0 if lowered.startswith(wanted) else _next_line(lowered, wanted, 0)
    while position >= 0:
        match = _BEHIND_NAME.match(head, position + len(wanted))
        if match:
            yield match[1]
        position = _next_line(lowered, wanted, match.end() if match else position)


def _next_line(lowered: bytes, beginning: bytes, position: int) -> int:
    """Return where the next line starts that begins so; -1: there is none."""
    found = lowered.find(b"\r\n" + beginning, position)
    return found + 2 if found >= 0 else -1


def field_values(head: bytes, name: str) -> list[bytes]:
    """Return the unfolded, stripped values of every field called `name`, in order."""
    return [unfolded(value) for value in _values(head, name)]


def count_fields(head: bytes, name: str) -> int:
    """Return how many fields are called `name`."""
    return sum(1 for _ in _values(head, name))


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
