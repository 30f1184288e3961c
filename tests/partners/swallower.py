"""A proxy that passes requests on and swallows the first answers: the client sees a dead line."""

import socket
import threading
from typing import Self


class Swallower:
    """In front of `port`; the first `swallow` answers are read and thrown away."""

    def __init__(self, port: int, swallow: int) -> None:
        self._target = port
        self._left = swallow
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.passed = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            with client, socket.create_connection(("127.0.0.1", self._target)) as target:
                target.sendall(_read_message(client))
                answer = _read_message(target)
                self.passed += 1
                if self._left:
                    self._left -= 1
                    continue  # the answer was given, and the line goes dead
                client.sendall(answer)


def _read_message(connection: socket.socket) -> bytes:
    """One HTTP message with Content-Length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body
