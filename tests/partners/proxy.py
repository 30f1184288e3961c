"""A proxy before PostgreSQL's socket that ends connections at a chosen octet, or falls silent."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Started by `with`; it listens on a port of its own."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._may_pass = threading.Event()
        self._may_pass.set()
        self._mark: tuple[bytes, str] | None = None
        self._open: list[socket.socket] = []

    def url(self, direct: str) -> str:
        """The URL of a database of the server, by way of this proxy."""
        return f"postgresql://sendback@127.0.0.1:{self.port}{urlsplit(direct).path}?sslmode=disable"

    def end_at(self, words: bytes, when: str) -> None:
        """End the connection once, `before` these words reach the server or `after` its reply."""
        self._mark = (words, when)

    def pause(self) -> None:
        """Keep what arrives, in both directions, and the connections."""
        self._may_pass.clear()

    def resume(self) -> None:
        self._may_pass.set()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hold back what both sides say meanwhile, as a network that loses all packets does."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        self._listening.close()
        for found in self._open:
            _end(found)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(self._target)
                except OSError:  # it is stopped
                    _end(server)
                    _end(client)
                    continue
                self._open += [client, server]
                ending = threading.Event()
                for source, sink, is_client in ((client, server, True), (server, client, False)):
                    threading.Thread(
                        target=self._copy, args=(source, sink, is_client, ending), daemon=True
                    ).start()

    def _copy(
        self, source: socket.socket, sink: socket.socket, is_client: bool, ending: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65536):
                self._may_pass.wait()
                if is_client and self._mark is not None and self._mark[0] in octets:
                    when, self._mark = self._mark[1], None
                    if when == "before":
                        break
                    ending.set()
                elif not is_client and ending.is_set():
                    break
                sink.sendall(octets)
        _end(source)
        _end(sink)


def _end(found: socket.socket) -> None:
    with contextlib.suppress(OSError):
        found.shutdown(socket.SHUT_RDWR)
    found.close()
