"""The listening sockets, and where they actually listen."""

import json
import socket
from dataclasses import dataclass

from sendback.config.settings import SettingError, Settings
from sendback.config.types import Listen

BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where it actually listens: port 0 has become a real one."""

    http: Listen
    smtp: Listen

    def to_json(self) -> str:
        """What `--ready-file` holds."""
        value = {
            "http": {"host": self.http.host, "port": self.http.port},
            "smtp": {"host": self.smtp.host, "port": self.smtp.port},
        }
        return json.dumps(value)


@dataclass(frozen=True, slots=True)
class Sockets:
    """The listening sockets. All workers accept from the same ones.

    So a connection is served by a worker that is at leisure, and one that hangs or has ended keeps
    none waiting. With a socket for each worker (SO_REUSEPORT), the kernel gives each its share of
    the connections, whatever its state; and another server could take a share by accident.
    """

    http: socket.socket
    smtp: socket.socket

    def close(self) -> None:
        """Close this process's ends."""
        self.http.close()
        self.smtp.close()


def bind(settings: Settings) -> tuple[Sockets, Addresses]:
    """Listen on the addresses that the settings name. Raises `SettingError`."""
    sockets = Sockets(
        _bind("http_listen", settings.http_listen), _bind("smtp_listen", settings.smtp_listen)
    )
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
