"""The interface of content stores, its errors, and the file by which content is read.

The functions of a store block: they are called in threads. What a store raises is one of the two
errors here, or `OSError` for this machine's own disk.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from sendback.errors import SendbackError
from sendback.store.engine.errors import StoreUnavailableError


class ContentGoneError(SendbackError):
    """The content has been deleted, or a part of it; `str` is the reason. A retry cannot help."""


class ContentUnavailableError(StoreUnavailableError):
    """The content store cannot be read or written at the moment; a later attempt may succeed."""


class ContentStore(Protocol):
    """A place for contents, each with a unique name. A content is written once."""

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        """Store the pieces, durable when this returns.

        Raises `ContentUnavailableError`, `OSError`, and what iterating over `pieces` raises. A part
        may be left then, which `remove` deletes.
        """

    def open(self, name: str, size: int) -> io.BufferedIOBase:
        """Return the content, which has `size` octets, as a seekable file.

        Opening and reading raise `ContentGoneError` when it is missing or has another size,
        `ContentUnavailableError`, and `OSError`.
        """

    def size(self, name: str) -> int | None:
        """Return the size in octets, or None if there is no such content. Raises as `open` does."""

    def path(self, name: str) -> Path | None:
        """Return the file that is this content, or None for a store without files."""

    def remove(self, names: Sequence[str]) -> None:
        """Delete contents, also those of which only a part is there, or nothing.

        Raises `ContentUnavailableError`, `OSError`.
        """

    def clear(self) -> None:
        """Delete all contents. Raises `ContentUnavailableError`, `OSError`."""

    def check(self) -> None:
        """Raise `SettingError` or `ContentUnavailableError` if the store cannot be used."""

    def close(self) -> None:
        """Close the connections."""


def check_size(name: str, found: int | None, size: int) -> None:
    """Raise `ContentGoneError` if a content is missing (None) or has another size."""
    if found is None:
        raise ContentGoneError(f"the content {name} is not there any more")
    if found != size:
        raise ContentGoneError(f"the content {name} is not complete")


class SeekableFile(io.RawIOBase):
    """A file of `size` octets with a position. A subclass reads: `readinto`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position


class BlockFile(SeekableFile):
    """A seekable file whose content is read in blocks; the last block is kept.

    `read_block` returns a block that has the octet at an offset, and the offset of its beginning.
    """

    def __init__(self, size: int, read_block: Callable[[int], tuple[int, bytes]]) -> None:
        super().__init__(size)
        self._read_block = read_block
        self._start = 0
        self._block = b""

    def readinto(self, buffer: "memoryview | bytearray", /) -> int:  # type: ignore[override]
        if self._position >= self._size:
            return 0
        if not self._start <= self._position < self._start + len(self._block):
            self._block = b""  # one block in memory, not two
            self._start, self._block = self._read_block(self._position)
        begin = self._position - self._start
        piece = memoryview(self._block)[begin : begin + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def close(self) -> None:
        self._block = b""
        super().close()


def in_blocks(pieces: Iterable[bytes], octets: int) -> Iterable[bytes]:
    """Yield the same octets in blocks of this size; the last one may be shorter, none is empty."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        rest = memoryview(piece)
        while size + len(rest) >= octets:
            cut = octets - size
            yield b"".join([*waiting, rest[:cut]])
            rest, waiting, size = rest[cut:], [], 0
        if rest:
            waiting.append(bytes(rest))
            size += len(rest)
    if waiting:
        yield b"".join(waiting)
