"""The canonical forms of DKIM (RFC 6376 §3.4), for signing and for verifying. Pure.

A body is canonicalized in pieces: it need not be in memory, and the work is linear in its size for
any content. Runs of blanks are reduced and empty lines are counted, so neither is buffered.
"""

import re
from collections.abc import Iterator

_WSP = re.compile(rb"[ \t]+")
_CRLF = b"\r\n"
# Bounds the passes over one run of blanks, each of which halves it, at 16.
_PIECE_OCTETS = 64 * 1024
_LINE_ENDS = _CRLF * 8192


def relaxed_field(name: bytes, field: bytes) -> bytes:
    """Return the relaxed form of a header field, with its CRLF (RFC 6376 §3.4.2).

    `field` has the name, the colon and the value, folded as received.
    """
    value = field[field.index(b":") + 1 :].replace(_CRLF, b"")
    return name.lower() + b":" + _WSP.sub(b" ", value).strip(b" \t") + _CRLF


class SimpleBody:
    """The simple form of a body (RFC 6376 §3.4.3): one CRLF at the end, nothing else changed."""

    # Ends of a piece that the next piece may complete to a line end or removable white space.
    _open_ends: tuple[bytes, ...] = (b"\r",)

    def __init__(self) -> None:
        self._held = b""
        self._empty_lines = 0
        self._has_text = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the octets of the canonical form that the next octets of the body complete.

        Exhaust the iterator before the next call.
        """
        for start in range(0, len(chunk), _PIECE_OCTETS):
            yield from self._feed(chunk[start : start + _PIECE_OCTETS])

    def finish(self) -> Iterator[bytes]:
        """Yield the rest of the canonical form."""
        rest = self._held.removesuffix(b" ")
        if rest:
            yield from self._take(rest)
        if self._has_text or self._has_final_line():
            yield _CRLF

    def _feed(self, piece: bytes) -> Iterator[bytes]:
        text = self._reduce(self._held + piece)
        self._held = next((end for end in self._open_ends if text.endswith(end)), b"")
        yield from self._take(text[: len(text) - len(self._held)])

    def _take(self, text: bytes) -> Iterator[bytes]:
        """Yield the text without its final line ends, which may be the end of the body."""
        line_ends = _count_line_ends(text)
        if len(text) == 2 * line_ends:
            self._empty_lines += line_ends
            return
        while self._empty_lines:
            some = min(self._empty_lines, len(_LINE_ENDS) // 2)
            self._empty_lines -= some
            yield _LINE_ENDS[: 2 * some]
        self._empty_lines = line_ends
        self._has_text = True
        yield text[: len(text) - 2 * line_ends]

    def _reduce(self, text: bytes) -> bytes:
        return text

    def _has_final_line(self) -> bool:
        """Whether the canonical form of an empty body is a line end."""
        return True


class RelaxedBody(SimpleBody):
    """The relaxed form of a body (RFC 6376 §3.4.4)."""

    _open_ends = (b" \r", b"\r", b" ")

    def _reduce(self, text: bytes) -> bytes:
        text = text.replace(b"\t", b" ")
        while b"  " in text:
            text = text.replace(b"  ", b" ")
        return text.replace(b" \r\n", _CRLF)

    def _has_final_line(self) -> bool:
        return False


def relaxed_body(body: bytes) -> bytes:
    """Return the relaxed form of a whole body."""
    form = RelaxedBody()
    return b"".join((*form.feed(body), *form.finish()))


def _count_line_ends(text: bytes) -> int:
    """Return how many CRLF in a row the text ends with."""
    tail = text[len(text.rstrip(_CRLF)) :].replace(_CRLF, b"\0")
    return len(tail) - len(tail.rstrip(b"\0"))
