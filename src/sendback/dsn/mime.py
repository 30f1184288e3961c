"""Split a message from any producer into its parts, leniently, in linear time, with limits.

Theory of operation. The line ends are made CRLF once, and a part is a span of the message: its
octets are copied when a leaf is read, not before. A multipart is split by its own boundary, then
each of its parts by theirs, so each level of nesting reads the message once; there are at most
`MAX_DEPTH`. What is inside message/rfc822 belongs to another mail and is not read.

A message that exceeds the limits below raises `TooComplexError`.
"""

import re
from binascii import a2b_base64, a2b_qp
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sendback.dsn.content_types import ContentType, parse_content_type
from sendback.errors import SendbackError
from sendback.mail.charsets import decode_charset

MAX_DEPTH = 20
MAX_PARTS = 1000
MAX_FIELDS = 100_000  # in the headers of the message and its parts, and in its report
_MAX_BOUNDARY = 998  # RFC 2046 §5.1.1 says 70; a line has no more

# "\r\r\n" is what some programs make of "\r\n"; a Mac's "\r\r" is two line ends.
_LINE_END = re.compile(rb"\r\r\n|\r\n|\r|\n")
_FIELD_NAME = re.compile(rb"[!-9;-~]++")
_NOT_BASE64 = bytes(
    set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
)

Fields = tuple[tuple[str, str], ...]


class TooComplexError(SendbackError, ValueError):
    """The message has too many parts or fields; `str(error)` names the limit."""


class Budget:
    """The numbers of fields and parts that may still be read of one message."""

    def __init__(self) -> None:
        self._fields = MAX_FIELDS
        self._parts = MAX_PARTS

    def spend_field(self) -> None:
        """Raise `TooComplexError` after the last one."""
        self._fields -= 1
        if self._fields < 0:
            raise TooComplexError(f"it has more than {MAX_FIELDS} header and report fields")

    def spend_part(self) -> None:
        """Raise `TooComplexError` after the last one."""
        self._parts -= 1
        if self._parts < 0:
            raise TooComplexError(f"it has more than {MAX_PARTS} parts")


@dataclass(frozen=True, slots=True)
class Part:
    """A message or a part of one.

    `header` has its fields, unfolded; `octets[start:end]` is its content, with CRLF line ends;
    `children` are the parts of a multipart; `is_closed` says whether its last delimiter is there,
    `is_separated` whether an empty line ends its header.
    """

    octets: bytes
    start: int
    end: int
    header: Fields
    content_type: ContentType
    children: tuple["Part", ...] = ()
    is_closed: bool = True
    is_separated: bool = True

    @property
    def media_type(self) -> str:
        """Lower case, without parameters; empty where there is no Content-Type."""
        return self.content_type.media_type

    @property
    def parameters(self) -> Mapping[str, str]:
        """Of the Content-Type."""
        return self.content_type.parameters

    @property
    def encoding(self) -> str:
        """The Content-Transfer-Encoding, 7bit where none is given (RFC 2045 §6.1)."""
        value = first_value(self.header, "Content-Transfer-Encoding")
        return parse_content_type(value.encode("utf-8")).media_type or "7bit"

    @property
    def body(self) -> bytes:
        """The content as it is, but for its line ends."""
        return self.octets[self.start : self.end]

    def decoded(self) -> bytes:
        """The content without base64 or quoted-printable; garbage gives what is left of it."""
        return decode_transfer(self.body, self.encoding)

    def text(self) -> str:
        """The decoded content in its charset, in UTF-8 when that is unknown; lines end in CRLF."""
        octets = self.decoded()
        found = decode_charset(octets, self.parameters.get("charset", "us-ascii"))
        text = found if found is not None else octets.decode("utf-8", "replace")
        return "\r\n".join(re.split("\r\r\n|\r\n|\r|\n", text))

    def leaves(self) -> Iterator["Part"]:
        """Yield the parts without parts, in the order of the message; itself if it has none."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


def read_message(octets: bytes, budget: Budget | None = None) -> Part:
    """Return the message as a tree of parts. Raises `TooComplexError`."""
    octets = with_crlf(octets)
    return _read_part(octets, 0, len(octets), 0, budget or Budget())


def with_crlf(octets: bytes) -> bytes:
    """Return the octets with CRLF for every line end: LF, CR, CRLF, mixed."""
    ends = octets.count(b"\r\n")
    if octets.count(b"\r") == ends == octets.count(b"\n"):
        return octets
    return _LINE_END.sub(b"\r\n", octets)


def all_values(fields: Fields, name: str) -> list[str]:
    """Return the values of every field of that name, case-insensitively."""
    wanted = name.lower()
    return [value for key, value in fields if key.lower() == wanted]


def first_value(fields: Fields, name: str) -> str:
    """Return the value of the first field of that name, or ""."""
    wanted = name.lower()
    return next((value for key, value in fields if key.lower() == wanted), "")


def lines_of(octets: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield where each line begins and the line without its CRLF."""
    while start < end:
        line_end = octets.find(b"\r\n", start, end)
        if line_end < 0:
            line_end = end
        yield start, octets[start:line_end]
        start = line_end + 2


def is_field(line: bytes) -> bool:
    """Whether the line begins a header field (RFC 5322 §2.2; §4.5: blanks before the colon)."""
    name, colon, _ = line.partition(b":")
    return bool(colon) and _FIELD_NAME.fullmatch(name.rstrip(b" \t")) is not None


def raw_fields(lines: list[bytes], budget: Budget) -> list[tuple[bytes, bytes]]:
    """Return names and unfolded values of a block of lines; a line that is no field is left out."""
    found: list[list[bytes]] = []
    for line in lines:
        if line[:1] in {b" ", b"\t"}:
            if found:
                found[-1].append(line)
        elif is_field(line):
            budget.spend_field()
            found.append([line])
    pairs = (b"".join(parts).partition(b":") for parts in found)
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def as_text(fields: list[tuple[bytes, bytes]]) -> Fields:
    """Return the fields as text; values may be UTF-8 (RFC 6532).

    A non-breaking space that some put behind the colon is no part of the value.
    """
    return tuple(
        (name.decode("ascii", "replace"), value.decode("utf-8", "replace").strip())
        for name, value in fields
    )


# --- encodings ------------------------------------------------------------------------------


def decode_transfer(octets: bytes, encoding: str) -> bytes:
    """Return the octets without base64 or quoted-printable; other encodings change nothing."""
    if encoding == "quoted-printable":
        return a2b_qp(octets)
    if encoding == "base64":
        digits = octets.translate(None, _NOT_BASE64)
        if len(digits) % 4 == 1:  # six bits are no octet
            digits = digits[:-1]
        return a2b_base64(digits + b"=" * (-len(digits) % 4))
    return octets


# --- parts ----------------------------------------------------------------------------------


def _read_part(octets: bytes, start: int, end: int, depth: int, budget: Budget) -> Part:
    """Return the part that is this span: its header, then its content."""
    lines, body, is_separated = _header_lines(octets, start, end, is_top=depth == 0)
    fields = raw_fields(lines, budget)
    header = as_text(fields)
    raw_types = (value for name, value in fields if name.lower() == b"content-type")
    kind = parse_content_type(next(raw_types, b""))
    if not kind.media_type.startswith("multipart/") or depth >= MAX_DEPTH:
        return Part(octets, body, end, header, kind, is_separated=is_separated)
    spans, is_closed = _cut(octets, body, end, kind.parameters.get("boundary", ""), budget)
    children = tuple(_read_part(octets, *span, depth + 1, budget) for span in spans)
    return Part(octets, body, end, header, kind, children, is_closed, is_separated)


def _header_lines(
    octets: bytes, start: int, end: int, *, is_top: bool
) -> tuple[list[bytes], int, bool]:
    """Return the header's lines, where the content begins, and whether an empty line parts them.

    Without an empty line the header ends before a delimiter, in a part also before any line that
    is no field. On top of a message, empty lines and lines that are no fields (the "From " line of
    a mailbox) are passed over.
    """
    lines: list[bytes] = []
    for position, line in lines_of(octets, start, end):
        if not line and not (is_top and not lines):
            return lines, min(position + 2, end), True
        belongs = is_field(line) or (bool(lines) and line[:1] in {b" ", b"\t"})
        if line.startswith(b"--") or not (belongs or is_top):
            return lines, position, False
        if belongs:
            lines.append(line)
    return lines, end, True


def _cut(
    octets: bytes, start: int, end: int, boundary: str, budget: Budget
) -> tuple[list[tuple[int, int]], bool]:
    """Return the spans of a multipart's parts, and whether its last delimiter is there.

    A boundary that occurs nowhere is taken from the first delimiter that is there.
    """
    candidates = (boundary, boundary.partition("(")[0], boundary.strip("\"'"))
    markers = [b"--" + text.rstrip().encode("latin-1") for text in candidates if text.strip()]
    for marker in dict.fromkeys(markers):
        spans, is_closed = _cut_by(octets, start, end, marker, budget)
        if spans:
            return spans, is_closed
    there = _first_delimiter(octets, start, end)
    return _cut_by(octets, start, end, there, budget) if there else ([], False)


def _cut_by(
    octets: bytes, start: int, end: int, marker: bytes, budget: Budget
) -> tuple[list[tuple[int, int]], bool]:
    """RFC 2046 §5.1.1: the line end before a delimiter belongs to the delimiter."""
    spans: list[tuple[int, int]] = []
    opened: int | None = None
    for position, line_end, is_last in _delimiters(octets, start, end, marker):
        if opened is not None:
            budget.spend_part()
            spans.append((opened, max(opened, position - 2)))
            if is_last:
                return spans, True
        if not is_last:  # one that closes what was not opened is text
            opened = min(line_end + 2, end)
    if opened is not None:
        budget.spend_part()
        spans.append((opened, end))
    return spans, False


def _delimiters(
    octets: bytes, start: int, end: int, marker: bytes
) -> Iterator[tuple[int, int, bool]]:
    """Yield where each delimiter line begins and ends, and whether it is a closing one."""
    if len(marker) > _MAX_BOUNDARY:
        return
    at_line = b"\r\n" + marker
    position = start if octets.startswith(marker, start, end) else -1
    if position < 0:
        position = _next(octets.find(at_line, start, end))
    while position >= 0:
        line_end = octets.find(b"\r\n", position, end)
        line_end = end if line_end < 0 else line_end
        tail = octets[position + len(marker) : line_end].strip(b" \t")
        if tail in {b"", b"--"}:
            yield position, line_end, tail == b"--"
        position = _next(octets.find(at_line, line_end, end))


def _next(found: int) -> int:
    """Return where the line behind a CRLF begins; -1 when none was found."""
    return found + 2 if found >= 0 else -1


def _first_delimiter(octets: bytes, start: int, end: int) -> bytes | None:
    """Return the first line that looks like a delimiter: `--`, and a Content-… field below it."""
    position = start
    while (position := octets.find(b"--", position, end)) >= 0:
        line_end = octets.find(b"\r\n", position, end)
        if line_end < 0:
            return None
        below = octets[line_end + 2 : min(line_end + 10, end)].lower()
        if octets[max(position - 2, 0) : position] == b"\r\n" and below == b"content-":
            return octets[position:line_end].rstrip(b" \t")[: _MAX_BOUNDARY + 1]
        position = line_end
    return None
