"""The listening sockets and their addresses."""

import json
import socket
from dataclasses import dataclass

from sendback.config.settings import SettingError, Settings
from sendback.config.types import Listen

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of the listening sockets, with real ports instead of port 0."""

    http: Listen
    smtp: Listen

    def to_json(self) -> str:
        """Return the content of `--ready-file`."""
        value = {
            "http": {"host": self.http.host, "port": self.http.port},
            "smtp": {"host": self.smtp.host, "port": self.smtp.port},
        }
        return json.dumps(value)


@dataclass(frozen=True, slots=True)
class Sockets:
    """The listening sockets, from which all workers accept.

    So an idle worker accepts the next connection, and a worker that hangs or has ended delays none.
    With a socket for each worker (SO_REUSEPORT), the kernel would distribute connections without
    regard to the state of workers, and another server could receive some by accident.
    """

    http: socket.socket
    smtp: socket.socket

    def close(self) -> None:
        """Close the sockets in this process."""
        self.http.close()
        self.smtp.close()


def bind(settings: Settings) -> tuple[Sockets, Addresses]:
    """Listen on the addresses in the settings. Raise `SettingError`."""
    http = _bind("http_listen", settings.http_listen)
    try:
        sockets = Sockets(http, _bind("smtp_listen", settings.smtp_listen))
    except SettingError:
        http.close()
        raise
    addresses = Addresses(
        Listen(settings.http_listen.host, sockets.http.getsockname()[1]),
        Listen(settings.smtp_listen.host, sockets.smtp.getsockname()[1]),
    )
    return sockets, addresses


def _bind(name: str, listen: Listen) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((listen.host, listen.port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = f"an address of this machine whose port is free ({error})"
        raise SettingError(name, str(listen), "the settings", reason) from None
    listener.setblocking(False)
    return listener
