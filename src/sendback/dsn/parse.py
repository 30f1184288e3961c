"""Reads a DSN, anyone's: written apart from `compose`, so that each can judge the other.

It cuts the multipart by its boundary and the report by its empty lines; it is lenient about what
RFC 3464 asks of writers and strict about structure: no boundary, no report, no answer.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from quopri import decodestring

_UTF8_XTEXT = re.compile(r"\\x\{([0-9A-Fa-f]{1,6})\}")
_PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))')


class NotADsnError(ValueError):
    """The message is no multipart/report with a delivery status in it."""


Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ParsedRecipient:
    """One recipient's group: its fields in order, and the usual ones by name."""

    fields: Fields

    @property
    def final_recipient(self) -> str:
        """The address without its type, RFC 6533 escapes decoded."""
        value = _first(self.fields, "Final-Recipient").partition(";")[2].strip()
        return _UTF8_XTEXT.sub(lambda match: chr(int(match[1], 16)), value)

    @property
    def action(self) -> str:
        return _first(self.fields, "Action").lower()

    @property
    def status(self) -> str:
        return _first(self.fields, "Status")


@dataclass(frozen=True, slots=True)
class ParsedDsn:
    """The header, the human part as text, both kinds of report fields, what was returned."""

    header: Fields
    explanation: str
    message_fields: Fields
    recipients: tuple[ParsedRecipient, ...]
    returned_type: str
    returned: bytes

    def header_value(self, name: str) -> str:
        return _first(self.header, name)

    def message_value(self, name: str) -> str:
        return _first(self.message_fields, name)


@dataclass(frozen=True, slots=True)
class _Part:
    header: Fields
    body: bytes

    @property
    def media_type(self) -> str:
        return _first(self.header, "Content-Type").partition(";")[0].strip().lower()


def parse(message: bytes) -> ParsedDsn:
    """Reads one DSN. Raises `NotADsnError`."""
    whole = _part(message)
    parameters = _parameters(_first(whole.header, "Content-Type"))
    if whole.media_type != "multipart/report" or "boundary" not in parameters:
        raise NotADsnError("the message is not a multipart/report with a boundary")
    parts = _split(whole.body, parameters["boundary"])
    report = next((p for p in parts if p.media_type.endswith("delivery-status")), None)
    if report is None:
        raise NotADsnError("the multipart/report has no delivery-status part")
    groups = _groups(report.body)
    if len(groups) < 2:  # noqa: PLR2004 - RFC 3464 §2.1: one group a message, one a recipient
        raise NotADsnError("the delivery status reports on no recipient")
    human = parts[0]
    returned = parts[2] if len(parts) > 2 else _Part((), b"")  # noqa: PLR2004 - the third part
    return ParsedDsn(
        header=whole.header,
        explanation=_text(human),
        message_fields=groups[0],
        recipients=tuple(ParsedRecipient(group) for group in groups[1:]),
        returned_type=returned.media_type,
        returned=_decoded(returned),
    )


def _part(data: bytes) -> _Part:
    if data.startswith(b"\r\n"):
        return _Part((), data[2:])
    head, _, body = data.partition(b"\r\n\r\n")
    return _Part(_fields(head), body)


def _fields(block: bytes) -> Fields:
    unfolded = re.sub(rb"\r\n([ \t])", rb"\1", block)
    pairs = (line.partition(b":") for line in unfolded.split(b"\r\n") if b":" in line)
    return tuple(
        (name.strip().decode("ascii", "replace"), value.strip().decode("utf-8", "replace"))
        for name, _, value in pairs
    )


def _first(fields: Fields, name: str) -> str:
    wanted = name.lower()
    return next((value for key, value in fields if key.lower() == wanted), "")


def _parameters(content_type: str) -> dict[str, str]:
    return {
        match[1].lower(): re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(content_type)
    }


def _split(body: bytes, boundary: str) -> list[_Part]:
    """RFC 2046 §5.1.1: the line end before a delimiter belongs to the delimiter."""
    delimiter = re.compile(
        rb"(?:^|\r\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\r\n|$)"
    )
    matches = list(delimiter.finditer(body))
    parts = []
    for opening, closing in pairwise(matches):
        if opening[1]:
            break
        parts.append(_part(body[opening.end() + 2 : closing.start()]))
    return parts


def _groups(body: bytes) -> list[Fields]:
    blocks = re.split(rb"(?:[ \t]*\r\n){2,}", body.strip(b"\r\n"))
    return [fields for fields in map(_fields, blocks) if fields]


def _decoded(part: _Part) -> bytes:
    encoding = _first(part.header, "Content-Transfer-Encoding").lower()
    return decodestring(part.body) if encoding == "quoted-printable" else part.body


def _text(part: _Part) -> str:
    charset = _parameters(_first(part.header, "Content-Type")).get("charset", "us-ascii")
    try:
        return _decoded(part).decode(charset, "replace")
    except LookupError:
        return _decoded(part).decode("utf-8", "replace")
