"""An HTTP client that sends any octets, and reads what comes back."""

import contextlib
import re
import socket
from dataclasses import dataclass
from typing import Self
from xml.etree import ElementTree as ET

NAMESPACE = "{http://ses.amazonaws.com/doc/2010-12-01/}"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error in SES's form, whose parts agree with each other."""
        root = ET.fromstring(self.body)
        assert root.tag == f"{NAMESPACE}ErrorResponse"
        assert root.findtext(f"{NAMESPACE}RequestId") == self.headers["x-amzn-requestid"]
        assert self.headers["content-type"].startswith("text/xml")
        found = root.findtext(f"{NAMESPACE}Error/{NAMESPACE}Code")
        assert found
        return found


class RawHttp:
    """One connection. Every wait ends after 20 seconds."""

    def __init__(self, port: int, data: bytes = b"", source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
        self._rest = b""
        self.send(data)

    def send(self, data: bytes) -> None:
        """A server that has refused already may close while it is sent."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def read_all(self) -> bytes:
        """Everything until the server closes."""
        found = [self._rest]
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65536):
                found.append(data)
        self._rest = b""
        return b"".join(found)

    def reply(self) -> Reply:
        """The next answer, which has a Content-Length."""
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        length = int(headers.get("content-length", 0))
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        match = re.match(r"HTTP/1\.1 (\d{3}) ", lines[0])
        assert match, lines
        return Reply(int(match[1]), headers, body)

    def is_closed(self) -> bool:
        """Whether the server has closed it; waits for that, and nothing else may come before."""
        return self.read_all() == b""

    def close(self) -> None:
        self.socket.close()

    def _more(self) -> None:
        data = self.socket.recv(65536)
        assert data, f"closed after {self._rest!r}"
        self._rest += data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def is_healthy(port: int) -> bool:
    """Whether another client is served."""
    with RawHttp(port, HEALTH) as other:
        return other.reply().status == 200
