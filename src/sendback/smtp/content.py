"""The content of DATA, as it streams in (RFC 5321 §4.1.1.4, §4.5.2). Pure.

Only CR LF `.` CR LF ends it, wherever the octets are cut. A bare CR or LF anywhere is recorded,
because other servers on the way may treat it as a line end (SMTP smuggling, CVE-2023-51764): the
whole message is refused, and what follows the true end is commands.
"""

from dataclasses import dataclass

_END = b"\r\n.\r\n"
_LINE_END = b"\r\n"
_DOT_LINE = b"\r\n."  # begins a dot-stuffed line, or the end


@dataclass(frozen=True, slots=True)
class Piece:
    """Content without dot-stuffing; `end` is the offset after the end of data, or None."""

    content: bytes
    end: int | None


class ContentReader:
    """Reads one message's content. `has_bare_line_end` is complete once it has ended."""

    def __init__(self) -> None:
        # As if a CR LF had come before: the first line may be the end, or be dot-stuffed.
        self._pending = _LINE_END
        self._at_start = True
        self.has_bare_line_end = False

    def feed(self, data: bytes, start: int = 0) -> Piece:
        """Decode the next octets, `data` from `start` on, cut anywhere.

        Octets after the end are neither copied nor searched: a client may send thousands of small
        messages in one packet.
        """
        pending = self._pending
        # An end that begins in the pending octets is complete with four more at most.
        border = pending + data[start : start + len(_END) - 1]
        if _DOT_LINE not in border:
            dot = data.find(_DOT_LINE, start)
            if dot < 0:
                return self._read_on(pending + data[start:], is_stuffed=False)
            if data.startswith(_END, dot):  # as in most mail: the only such line is the end
                content = self._decode(pending + data[start : dot + 2], is_stuffed=False)
                return Piece(content, dot + len(_END))
        found = border.find(_END)
        if found >= 0:
            content = self._decode(border[: found + 2], is_stuffed=True)
            return Piece(content, start + found + len(_END) - len(pending))
        found = data.find(_END, start)
        if found >= 0:
            content = self._decode(pending + data[start : found + 2], is_stuffed=True)
            return Piece(content, found + len(_END))
        return self._read_on(pending + data[start:], is_stuffed=True)

    def _read_on(self, region: bytes, *, is_stuffed: bool) -> Piece:
        """Decode `region` but for its last octets, which may begin the end of data."""
        cut = len(region) - _partial_end(region)
        self._pending = region[cut:]
        return Piece(self._decode(region[:cut], is_stuffed=is_stuffed), None)

    def _decode(self, region: bytes, *, is_stuffed: bool) -> bytes:
        """Decode octets that neither begin nor end within a CR LF, nor before a dot after one."""
        if not region:
            return region
        start = len(_LINE_END) if self._at_start else 0  # the CR LF that was assumed
        self._at_start = False
        line_ends = region.count(_LINE_END)
        if region.count(b"\n") != line_ends or region.count(b"\r") != line_ends:
            self.has_bare_line_end = True
        return (region.replace(_DOT_LINE, _LINE_END) if is_stuffed else region)[start:]


def _partial_end(buffer: bytes) -> int:
    """Return how many octets at the end of the buffer may begin the end of data."""
    return next((size for size in (4, 3, 2, 1) if buffer.endswith(_END[:size])), 0)
