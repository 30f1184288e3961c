"""An SMTP server that behaves until a stage, and there does as it is told."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Self

_GOOD = {
    "greeting": b"220 awkward.example ESMTP\r\n",
    "HELO": b"250 awkward.example\r\n",
    "MAIL": b"250 2.1.0 Ok\r\n",
    "RCPT": b"250 2.1.5 Ok\r\n",
    "DATA": b"354 go on\r\n",
    "content": b"250 2.0.0 Ok\r\n",
    "RSET": b"250 2.0.0 Ok\r\n",
    "QUIT": b"221 2.0.0 Bye\r\n",
    "STARTTLS": b"220 2.0.0 go on\r\n",
}


class Awkward:
    """`misdeed(connection)` takes the place of the reply at `stage`; the octets that it answers
    are sent, None closes. Good stages are answered at once, and pipelined commands in order.
    """

    def __init__(
        self,
        stage: str = "",
        misdeed: Callable[[Any], bytes | None] | None = None,
        *,
        extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME"),
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._stage, self._misdeed = stage, misdeed
        self._extensions, self._tls = extensions, tls
        self._socket = socket.create_server((host, port))
        self.host, self.port = self._socket.getsockname()[:2]
        self.contents: list[bytes] = []
        self.commands: list[str] = []
        self._connections: list[Any] = []
        self.open = 0
        self.sessions = 0

    @property
    def url(self) -> str:
        return f"smtp://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 5
        while self.open and time.monotonic() < deadline:
            time.sleep(0.01)

    @staticmethod
    def stall(connection: Any) -> bytes | None:
        """Says nothing until the client gives up."""
        while connection.recv(65536):
            pass
        return None

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Any) -> None:
        self.open += 1
        self.sessions += 1
        self._connections.append(connection)
        try:
            connection.settimeout(20)
            self._session(connection)
        except (OSError, ConnectionError):
            pass
        finally:
            with contextlib.suppress(OSError):
                connection.close()
            self.open -= 1

    def _session(self, connection: Any) -> None:
        if not self._answer(connection, "greeting") or not self._talk(connection):
            return
        # STARTTLS
        with self._tls.wrap_socket(connection, server_side=True) as protected:  # type: ignore[union-attr]
            self._connections.append(protected)
            self._talk(protected)

    def _talk(self, connection: Any) -> bool:
        with connection.makefile("rb") as reader:
            return self._commands(connection, reader)

    def _commands(self, connection: Any, reader: Any) -> bool:
        """Whether the session goes on in TLS."""
        while line := reader.readline():
            command = line.decode("utf-8", "replace").strip()
            self.commands.append(command)
            verb = command.split(" ")[0].upper()
            if verb == "BDAT":
                self.contents.append(reader.read(int(command.split()[1])))
                verb = "content"
            if not self._answer(connection, verb):
                return False
            if verb == "DATA" and self._stage != "DATA":
                self.contents.append(self._read_content(reader))
                if not self._answer(connection, "content"):
                    return False
            if verb == "STARTTLS" and self._tls is not None:
                return True
            if verb == "QUIT":
                return False
        return False

    def _answer(self, connection: Any, stage: str) -> bool:
        if stage == self._stage and self._misdeed is not None:
            answer = self._misdeed(connection)
            if answer is not None:
                connection.sendall(answer)
            return answer is not None
        good = _GOOD.get(stage, b"500 5.5.2 what?\r\n")
        connection.sendall(self._ehlo(connection) if stage == "EHLO" else good)
        return True

    def _ehlo(self, connection: Any) -> bytes:
        names = [name for name in self._extensions if name != "STARTTLS"]
        offers_tls = self._tls is not None or "STARTTLS" in self._extensions
        if offers_tls and not isinstance(connection, ssl.SSLSocket):
            names.append("STARTTLS")
        lines = ["awkward.example", *names]
        text = "".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n"
        return text.encode()

    @staticmethod
    def _read_content(reader: Any) -> bytes:
        lines = []
        while (line := reader.readline()) not in {b".\r\n", b""}:
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)


def drip(seconds: float) -> Callable[[Any], bytes | None]:
    """Half a line, and then nothing."""

    def misdeed(connection: Any) -> bytes | None:
        connection.sendall(b"25")
        time.sleep(seconds)
        return None

    return misdeed


def flood(connection: Any) -> bytes | None:
    """Ten megabytes without a line's end."""
    for _ in range(160):
        connection.sendall(b"220 " + b"x" * 65532)
    return None


def endless_reply(connection: Any) -> bytes | None:
    """A reply of many lines that does not end."""
    for _ in range(4000):
        connection.sendall(b"250-" + b"x" * 100 + b"\r\n")
    return None
