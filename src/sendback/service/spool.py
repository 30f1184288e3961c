"""A message's content while it comes in: in memory while small, in a file beyond that."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

INLINE_OCTETS = 256 * 1024


class Spool:
    """Collects chunks. Close it when the message is kept or given up."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._chunks: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Raises `OSError` when the disk is full."""
        self.size += len(chunk)
        if self._file is None and self.size > INLINE_OCTETS:
            self._file = TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed by close()
            self._file.write(b"".join(self._chunks))
            self._chunks.clear()
        if self._file is None:
            self._chunks.append(chunk)
        else:
            self._file.write(chunk)

    def first(self, octets: int) -> bytes:
        """The beginning of what was written."""
        if self._file is None:
            return b"".join(self._chunks)[:octets]
        self._file.seek(0)
        return self._file.read(octets)

    def rest(self, offset: int) -> IO[bytes]:
        """The file, positioned at `offset`; only for content that is too large for memory."""
        if self._file is None:
            raise ValueError("the content is in memory")
        self._file.seek(offset)
        return self._file

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
