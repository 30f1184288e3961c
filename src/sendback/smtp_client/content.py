"""Content as the DATA command carries it (RFC 5321 §4.5.2): transparent, with its end. Pure.

The dot after a bare LF is doubled too: some servers end a line there, and content must not be able
to end its own transaction (SMTP smuggling).
"""

import re
from collections.abc import AsyncGenerator, AsyncIterable

_LEADING_DOT = re.compile(rb"(?m)^\.")


def dot_stuffed(content: bytes) -> bytes:
    """Return the content with the dots that begin a line doubled, and the final `.` line."""
    if content.startswith(b".") or b"\n." in content:
        content = _LEADING_DOT.sub(b"..", content)
    return content + _end_of_data(content[-2:])


async def dot_stuffed_pieces(pieces: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the octets that `dot_stuffed` returns for the joined pieces, piece by piece."""
    last = b"\n"  # the last octets before the piece: a dot at the very beginning begins a line
    async for piece in pieces:
        stuffed = piece.replace(b"\n.", b"\n..")
        begins_with_dot = last.endswith(b"\n") and piece.startswith(b".")
        yield b"." + stuffed if begins_with_dot else stuffed
        last = (last + piece[-2:])[-2:]
    yield _end_of_data(last)


def _end_of_data(last: bytes) -> bytes:
    return b".\r\n" if last == b"\r\n" else b"\r\n.\r\n"
