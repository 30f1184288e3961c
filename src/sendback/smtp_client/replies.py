"""The parser of an SMTP server's replies (RFC 5321 §4.2): octets in, replies out. Pure.

The server may be hostile: every length is bounded, each octet is read once, and malformed replies
are errors. Texts have visible characters only: they are written to logs and terminals.
"""

import re
from dataclasses import dataclass

from sendback.errors import SendbackError
from sendback.mail.printable import printable

MAX_LINE_OCTETS = 4096  # RFC 5321 §4.5.3.1.5 says 512; some write more
MAX_REPLY_OCTETS = 64 * 1024
_SHOWN = 500

_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)


class GarbageReplyError(SendbackError):
    """The server sent something other than a reply; `str` shows its beginning."""


@dataclass(frozen=True, slots=True)
class ServerReply:
    """A reply code and the lines of its text."""

    code: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return printable(f"{self.code} {self.beginning(_SHOWN)}".strip(), _SHOWN)

    def beginning(self, limit: int) -> str:
        """Return whole lines of the text, joined, up to the one that reaches `limit` characters."""
        lines: list[str] = []
        for line in self.lines:
            lines.append(line)
            limit -= len(line) + 1
            if limit < 0:
                break
        return " ".join(lines)

    @property
    def is_positive(self) -> bool:
        """Whether it is a 2yz or 3yz (RFC 5321 §4.2.1)."""
        return self.code < 400  # noqa: PLR2004

    @property
    def is_completion(self) -> bool:
        """Whether it is a 2yz: positive completion (RFC 5321 §4.2.1)."""
        return self.code // 100 == 2  # noqa: PLR2004

    @property
    def ends_session(self) -> bool:
        """Whether the server closes the connection after it (RFC 5321 §3.8)."""
        return self.code == 421  # noqa: PLR2004

    @property
    def is_permanent(self) -> bool:
        return self.code >= 500  # noqa: PLR2004 - RFC 5321 §4.2.1


class ReplyReader:
    """An incremental parser of replies."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0  # octets of the buffer in which there is no line end
        self._code: int | None = None
        self._lines: list[str] = []
        self._octets = 0

    @property
    def is_empty(self) -> bool:
        """Whether no part of an incomplete reply is buffered."""
        return not self._buffer and self._code is None

    def feed(self, data: bytes) -> list[ServerReply]:
        """Return the replies that are now complete. Raises `GarbageReplyError`."""
        self._buffer += data
        replies = []
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end < 0:
                self._searched = len(self._buffer)
                break
            line = bytes(self._buffer[:end]).rstrip(b"\r")
            del self._buffer[: end + 1]
            self._searched = 0
            reply = self._line(line)
            if reply is not None:
                replies.append(reply)
        if len(self._buffer) > MAX_LINE_OCTETS:
            raise GarbageReplyError(f"a line without an end: {_printable(self._buffer)}")
        return replies

    def _line(self, line: bytes) -> ServerReply | None:
        match = _LINE.fullmatch(line)
        if match is None or len(line) > MAX_LINE_OCTETS:
            raise GarbageReplyError(f"not a reply: {_printable(line)}")
        code = int(match[1])
        if self._code is not None and code != self._code:
            raise GarbageReplyError(f"one reply with two codes: {self._code}, {code}")
        self._octets += len(line)
        if self._octets > MAX_REPLY_OCTETS:
            raise GarbageReplyError("a reply without an end")
        self._lines.append(_printable(match[3] or b""))
        if match[2] == b"-":
            self._code = code
            return None
        reply = ServerReply(code, tuple(self._lines))
        self._code, self._lines, self._octets = None, [], 0
        return reply


def _printable(data: bytes | bytearray) -> str:
    return printable(data[:_SHOWN].decode("utf-8", "replace"), _SHOWN)
