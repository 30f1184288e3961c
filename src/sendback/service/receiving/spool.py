"""Incoming content of a message: in memory while small, in a file beyond that."""

from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

INLINE_OCTETS = 256 * 1024


class MemoryBudget:
    """The octets that all spools of a process may have in memory together."""

    def __init__(self, octets: int) -> None:
        self._left = octets

    def take(self, octets: int) -> bool:
        """Reserve so many octets; return False if they are not available."""
        if octets > self._left:
            return False
        self._left -= octets
        return True

    def give_back(self, octets: int) -> None:
        """Free so many octets."""
        self._left += octets


class Spool:
    """Collects chunks. Close it when the message is stored or refused."""

    def __init__(self, directory: Path, memory: MemoryBudget) -> None:
        self._directory = directory
        self._memory = memory
        self._in_memory = 0  # octets
        self._chunks: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, chunk: bytes) -> None:
        """Raises `OSError` when the disk is full."""
        self.size += len(chunk)
        if self._file is None and self.size <= INLINE_OCTETS and self._memory.take(len(chunk)):
            self._in_memory += len(chunk)
            self._chunks.append(chunk)
            return
        if self._file is None:
            self._file = TemporaryFile(dir=self._directory)  # noqa: SIM115 - closed by close()
            self._file.write(b"".join(self._chunks))
            self._forget_chunks()
        self._file.write(chunk)

    def first(self, octets: int) -> bytes:
        """Return the beginning of the content."""
        if self._file is None:
            return b"".join(self._chunks)[:octets]
        self._file.seek(0)
        return self._file.read(octets)

    def rest(self, offset: int) -> IO[bytes]:
        """Return the file at `offset`; only for content that is too large for memory."""
        if self._file is None:
            raise ValueError("the content is in memory")
        self._file.seek(offset)
        return self._file

    def close(self) -> None:
        self._forget_chunks()
        if self._file is not None:
            self._file.close()

    def _forget_chunks(self) -> None:
        self._chunks.clear()
        self._memory.give_back(self._in_memory)
        self._in_memory = 0
