"""Cutting a MIME message apart, leniently and without changing an octet. For readers of DSNs."""

import re
from dataclasses import dataclass
from itertools import pairwise
from quopri import decodestring

_PARAMETER = re.compile(r';\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))')

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """A message or a part of one: its header fields, unfolded, and its content as it stands."""

    header: Fields
    body: bytes

    @property
    def media_type(self) -> str:
        """Lower case, without parameters; empty where there is no Content-Type."""
        return first_value(self.header, "Content-Type").partition(";")[0].strip().lower()

    @property
    def parameters(self) -> dict[str, str]:
        """Of the Content-Type."""
        return {
            match[1].lower(): (
                re.sub(r"\\(.)", r"\1", match[2]) if match[2] is not None else match[3]
            )
            for match in _PARAMETER.finditer(first_value(self.header, "Content-Type"))
        }

    @property
    def encoding(self) -> str:
        """The Content-Transfer-Encoding, 7bit where none is given (RFC 2045 §6.1)."""
        return first_value(self.header, "Content-Transfer-Encoding").strip().lower() or "7bit"

    def decoded(self) -> bytes:
        """The content without quoted-printable."""
        return decodestring(self.body) if self.encoding == "quoted-printable" else self.body


def read_part(data: bytes) -> Part:
    """Header and content, at the first empty line."""
    if data.startswith(b"\r\n"):
        return Part((), data[2:])
    head, _, body = data.partition(b"\r\n\r\n")
    return Part(read_fields(head), body)


def read_fields(block: bytes) -> Fields:
    """Names and unfolded values, in order; lines that are no fields are passed over."""
    unfolded = re.sub(rb"\r\n([ \t])", rb"\1", block)
    pairs = (line.partition(b":") for line in unfolded.split(b"\r\n") if b":" in line)
    return tuple(
        (name.strip().decode("ascii", "replace"), value.strip().decode("utf-8", "replace"))
        for name, _, value in pairs
    )


def all_values(fields: Fields, name: str) -> list[str]:
    """The values of every field of that name, in any case."""
    wanted = name.lower()
    return [value for key, value in fields if key.lower() == wanted]


def first_value(fields: Fields, name: str) -> str:
    """The first of them, or an empty text."""
    wanted = name.lower()
    return next((value for key, value in fields if key.lower() == wanted), "")


def split_parts(body: bytes, boundary: str) -> list[Part]:
    """RFC 2046 §5.1.1: the line end before a delimiter belongs to the delimiter."""
    delimiter = re.compile(
        rb"(?:^|\r\n)--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*(?=\r\n|$)"
    )
    parts = []
    for opening, closing in pairwise(delimiter.finditer(body)):
        if opening[1]:
            break
        parts.append(read_part(body[opening.end() + 2 : closing.start()]))
    return parts


def split_groups(body: bytes) -> list[Fields]:
    """The groups of a delivery status, which empty lines separate (RFC 3464 §2.1)."""
    blocks = re.split(rb"(?:[ \t]*\r\n){2,}", body.strip(b"\r\n"))
    return [fields for fields in map(read_fields, blocks) if fields]
