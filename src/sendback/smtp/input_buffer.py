"""Octets received and not processed. Pure.

Every octet is searched and copied a constant number of times, however the client cuts its octets
into packets: chunks are kept as received, and a line in pieces is joined once, at its end.
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
        self._line: list[bytes] = []  # the pieces of an incomplete line
        self._line_octets = 0
        self.octets = 0

    def append(self, data: bytes) -> None:
        """Add the next octets."""
        if data:
            self._chunks.append(data)
            self.octets += len(data)

    def clear(self) -> None:
        """Discard everything."""
        self._chunks.clear()
        self._line.clear()
        self._position = self._line_octets = self.octets = 0

    def take_line(self) -> bytes | None:
        """Return the next line with its LF, or None when it is not complete.

        A line that is too long is cut to one octet more than the longest; the rest is discarded.
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
        """Decode the next chunk up to the end of the content; return None without a chunk."""
        if not self._chunks:
            return None
        chunk = self._chunks[0]
        piece = reader.feed(chunk, self._position)
        self._used(chunk, len(chunk) if piece.end is None else piece.end)
        return piece

    def _keep(self, piece: bytes) -> None:
        left = self._longest_line + 1 - self._line_octets
        if left > 0:
            piece = piece[:left]
            self._line.append(piece)
            self._line_octets += len(piece)

    def _used(self, chunk: bytes, end: int) -> None:
        """Advance in the first chunk to `end`."""
        self.octets -= end - self._position
        if end == len(chunk):
            self._chunks.popleft()
            end = 0
        self._position = end
