"""The content of a message: a header section, and a body in memory or in a content store.

A large body is read piece by piece, in threads: at most one piece is in memory for each reader. The
processes that find verdicts import this too, so it imports no database.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sendback.mail.envelope import Client, ReversePath
from sendback.store.engine.content.directory import open_file
from sendback.store.engine.content.model import ContentGoneError, SeekableFile

__all__ = ["CHUNK_OCTETS", "Content", "ContentGoneError", "LocalBody", "MailToCheck", "StoredBody"]

CHUNK_OCTETS = 256 * 1024
_MAX_HELO = 255
# Readers of slow content stores must not take the threads of everything else.
_threads = ThreadPoolExecutor(16, "content")


class StoredBody(Protocol):
    """A body that is not in memory. Its functions block.

    They raise `ContentGoneError`, `StoreUnavailableError` and `OSError`, also while it is read.
    """

    def open(self) -> io.BufferedIOBase:
        """Return the body as a seekable file."""

    def as_file(self) -> AbstractContextManager[Path]:
        """Return the path of a file with the body; the file is missing if the body is."""


@dataclass(frozen=True, slots=True)
class LocalBody:
    """A body that is a file of this machine, with its size in octets."""

    path: Path
    size: int

    def open(self) -> io.BufferedIOBase:
        return open_file(self.path, self.path.name, self.size)

    @contextmanager
    def as_file(self) -> Iterator[Path]:
        yield self.path


@dataclass(frozen=True, slots=True)
class Content:
    """A header section and a body: octets, or where they are stored.

    `body_size` is in octets; `body` begins with the empty line that ends the header section.
    """

    header: bytes
    body: bytes | StoredBody
    body_size: int

    @property
    def size(self) -> int:
        return len(self.header) + self.body_size

    def with_header(self, header: bytes) -> "Content":
        """Return the body with another header section."""
        return replace(self, header=header)

    def open(self) -> io.BufferedReader:
        """Return the content as a seekable file. Blocks.

        Opening and reading raise `ContentGoneError`, `StoreUnavailableError`, and `OSError` when a
        file cannot be read.
        """
        return io.BufferedReader(ContentFile(self.header, self._open_body()), CHUNK_OCTETS)

    def body_chunks(self) -> Iterator[bytes]:
        """Yield the body piece by piece. Blocks; raises as `open` does."""
        with self._open_body() as body:
            while chunk := body.read(CHUNK_OCTETS):
                yield chunk

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the content piece by piece, read in threads. Raises as `open` does."""
        if isinstance(self.body, bytes):
            yield self.header + self.body
            return
        loop = asyncio.get_running_loop()
        file = await loop.run_in_executor(_threads, self.open)
        try:
            while chunk := await loop.run_in_executor(_threads, file.read, CHUNK_OCTETS):
                yield chunk
        finally:
            file.close()

    def read(self) -> bytes:
        """Return the content at once, if it is known to be small. Raises as `open` does."""
        with self.open() as file:
            return file.read()

    async def whole(self) -> bytes:
        """Return the content at once, if it is known to be small. Raises as `open` does."""
        return b"".join([piece async for piece in self.stream()])

    @asynccontextmanager
    async def in_file(self) -> AsyncIterator["Content"]:
        """Return the content for the time of the context, with a body in memory or in a file.

        Raises `StoreUnavailableError`, `OSError`. A body that is gone is a file that is missing.
        """
        if isinstance(self.body, bytes):
            yield self
            return
        loop = asyncio.get_running_loop()
        context = self.body.as_file()
        path = await loop.run_in_executor(_threads, context.__enter__)
        try:
            yield replace(self, body=LocalBody(path, self.body_size))
        finally:
            await loop.run_in_executor(_threads, context.__exit__, None, None, None)

    def _open_body(self) -> io.BufferedIOBase:
        return io.BytesIO(self.body) if isinstance(self.body, bytes) else self.body.open()


class ContentFile(SeekableFile):
    """A header section and a body as one seekable file."""

    def __init__(self, header: bytes, body: io.BufferedIOBase) -> None:
        super().__init__(len(header) + body.seek(0, io.SEEK_END))
        self._header = header
        self._body = body
        body.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = super().seek(offset, whence)
        self._body.seek(max(0, position - len(self._header)))
        return position

    def readinto(self, buffer: "memoryview | bytearray", /) -> int:  # type: ignore[override]
        if self._position < len(self._header):
            piece = self._header[self._position : self._position + len(buffer)]
            buffer[: len(piece)] = piece
            size = len(piece)
        else:
            size = self._body.readinto(buffer)
        self._position += size
        return size

    def close(self) -> None:
        self._body.close()
        super().close()


@dataclass(frozen=True, slots=True)
class MailToCheck:
    """A mail to determine the verdicts of, without the trace fields of this server.

    `name` is its message ID, for the log. Signatures must be valid at `received_at`.
    """

    name: str
    client: Client
    reverse_path: ReversePath
    received_at: datetime
    content: Content

    @property
    def sender_domain(self) -> str:
        """The domain that SPF checks: of MAIL FROM, or HELO (RFC 7208 §2.3, §2.4)."""
        address = self.reverse_path.address
        return address.ascii_domain if address else self.client.helo[:_MAX_HELO]
