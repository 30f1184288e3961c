"""The octets that a client has sent and that no command or content has used yet. Pure.

Every octet is searched and copied a constant number of times, however the client cuts its octets
into packets: chunks wait as they came, and a line that comes in pieces is joined once, at its end.
"""

from collections import deque

from sendback.smtp.content import ContentReader, Piece


class InputBuffer:
    """Chunks of octets, taken as lines or as content."""

    def __init__(self, longest_line: int) -> None:
        """`longest_line` is in octets, with the CR LF."""
        self._longest_line = longest_line
        self._chunks: deque[bytes] = deque()
        self._position = 0  # in the first chunk
        self._line: list[bytes] = []  # the pieces of a line whose end has not come
        self._line_octets = 0
        self.octets = 0

    def append(self, data: bytes) -> None:
        """Add the next octets."""
        if data:
            self._chunks.append(data)
            self.octets += len(data)

    def clear(self) -> None:
        """Drop everything."""
        self._chunks.clear()
        self._line.clear()
        self._position = self._line_octets = self.octets = 0

    def take_line(self) -> bytes | None:
        """Return the next line with its LF, or None when its end has not come.

        Of a line that is too long, the beginning is returned, one octet longer than the longest.
        The rest of it is dropped as it comes.
        """
        while self._chunks:
            chunk, start = self._chunks[0], self._position
            end = chunk.find(b"\n", start) + 1
            piece = chunk[start : end or len(chunk)]
            self._used(chunk, start + len(piece))
            if end and not self._line:
                return piece[: self._longest_line + 1]
            self._keep(piece)
            if end:
                line = b"".join(self._line)
                self._line.clear()
                self._line_octets = 0
                return line
        return None

    def take_content(self, reader: ContentReader) -> Piece | None:
        """Give the next chunk to `reader` as far as it belongs to the content; None without one."""
        if not self._chunks:
            return None
        chunk = self._chunks[0]
        piece = reader.feed(chunk, self._position)
        self._used(chunk, len(chunk) if piece.end is None else piece.end)
        return piece

    def _keep(self, piece: bytes) -> None:
        room = self._longest_line + 1 - self._line_octets
        if room > 0:
            piece = piece[:room]
            self._line.append(piece)
            self._line_octets += len(piece)

    def _used(self, chunk: bytes, end: int) -> None:
        """The first chunk is used up to `end`."""
        self.octets -= end - self._position
        if end == len(chunk):
            self._chunks.popleft()
            end = 0
        self._position = end
