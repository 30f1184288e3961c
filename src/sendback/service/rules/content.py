"""The content of a message: a header section, and a body in memory or in a file.

A large body is a file that each reader reads piece by piece, in threads: at most one piece is in
memory for each reader.
"""

import asyncio
import io
import os
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sendback.errors import SendbackError
from sendback.mail.envelope import Client, ReversePath

CHUNK_OCTETS = 256 * 1024
_MAX_HELO = 255


class ContentGoneError(SendbackError):
    """The content has been deleted, or a part of it; `str` is the reason."""


@dataclass(frozen=True, slots=True)
class Content:
    """A header section and a body: octets, or the file with them.

    `body_size` is in octets; `body` begins with the empty line that ends the header section.
    """

    header: bytes
    body: bytes | Path
    body_size: int

    @property
    def size(self) -> int:
        return len(self.header) + self.body_size

    def with_header(self, header: bytes) -> "Content":
        """Return the body with another header section."""
        return replace(self, header=header)

    def open(self) -> io.BufferedReader:
        """Return the content as a seekable file. Blocks.

        Raises `ContentGoneError`, and `OSError` when the file cannot be read.
        """
        return io.BufferedReader(_ContentFile(self.header, self._open_body()), CHUNK_OCTETS)

    def body_chunks(self) -> Iterator[bytes]:
        """Yield the body piece by piece. Blocks; raises as `open` does."""
        with self._open_body() as body:
            while chunk := body.read(CHUNK_OCTETS):
                yield chunk

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the content piece by piece; files are read in threads. Raises as `open` does."""
        if isinstance(self.body, bytes):
            yield self.header + self.body
            return
        file = await asyncio.to_thread(self.open)
        try:
            while chunk := await asyncio.to_thread(file.read, CHUNK_OCTETS):
                yield chunk
        finally:
            file.close()

    def read(self) -> bytes:
        """Return the content at once, if it is known to be small. Raises as `open` does."""
        with self.open() as file:
            return file.read()

    def _open_body(self) -> io.BufferedIOBase:
        if isinstance(self.body, bytes):
            return io.BytesIO(self.body)
        try:
            file = self.body.open("rb")
        except FileNotFoundError:
            raise ContentGoneError(f"the content {self.body.name} is not there any more") from None
        if os.fstat(file.fileno()).st_size != self.body_size:
            file.close()
            raise ContentGoneError(f"the content {self.body.name} is not complete")
        return file


class _ContentFile(io.RawIOBase):
    """A header section and a body as one seekable file."""

    def __init__(self, header: bytes, body: io.BufferedIOBase) -> None:
        self._header = header
        self._body = body
        self._size = len(header) + body.seek(0, io.SEEK_END)
        self._position = 0
        body.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        self._body.seek(max(0, self._position - len(self._header)))
        return self._position

    def tell(self) -> int:
        return self._position

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
