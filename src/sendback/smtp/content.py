"""The content of DATA, as it streams in (RFC 5321 §4.1.1.4, §4.5.2). Pure.

Only CR LF `.` CR LF ends it, wherever the octets are cut. A bare CR or LF anywhere is noted,
because the servers behind and before this one may take it for a line end (SMTP smuggling,
CVE-2023-51764): the message is refused whole, and what follows the true end is commands.
"""

from dataclasses import dataclass

_END = b"\r\n.\r\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """Content without dot-stuffing; when `ended`, `rest` is what came behind the end."""

    content: bytes
    ended: bool
    rest: bytes


class ContentReader:
    """Reads one message's content. `has_bare_line_end` is complete once it has ended."""

    def __init__(self) -> None:
        # As if a CR LF had come before: the first line may be the end, or be dot-stuffed.
        self._held = b"\r\n"
        self._at_start = True
        self.has_bare_line_end = False

    def feed(self, data: bytes) -> Piece:
        """Takes the next octets, cut anywhere."""
        buffer = self._held + data
        end = buffer.find(_END)
        if end >= 0:
            return Piece(self._decode(buffer[: end + 2]), True, buffer[end + len(_END) :])
        keep = _partial_end(buffer)
        cut = len(buffer) - keep
        self._held = buffer[cut:]
        return Piece(self._decode(buffer[:cut]), False, b"")

    def _decode(self, region: bytes) -> bytes:
        """`region` never begins or ends inside a CR LF or before the dot of one."""
        if not region:
            return region
        line_ends = region.count(b"\r\n")
        if region.count(b"\n") != line_ends or region.count(b"\r") != line_ends:
            self.has_bare_line_end = True
        content = region.replace(b"\r\n.", b"\r\n")
        if self._at_start:
            self._at_start = False
            return content[2:]
        return content


def _partial_end(buffer: bytes) -> int:
    """How many octets at the buffer's end may be the beginning of the end of data."""
    return next((size for size in (4, 3, 2, 1) if buffer.endswith(_END[:size])), 0)
