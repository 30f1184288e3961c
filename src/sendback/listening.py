"""The listening sockets, and where they actually listen."""

import json
import socket
from dataclasses import dataclass

from sendback.config import SettingError, Settings
from sendback.setting_texts import Listen

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
    """The listening sockets of one worker."""

    http: socket.socket
    smtp: socket.socket


def bind(settings: Settings) -> tuple[list[Sockets], Addresses]:
    """One pair of sockets a worker, all on the ports that the first one was given, and these.

    Raises `SettingError`.
    """
    shared = settings.workers > 1
    first = Sockets(
        _bind("http_listen", settings.http_listen, shared=shared),
        _bind("smtp_listen", settings.smtp_listen, shared=shared),
    )
    addresses = Addresses(
        Listen(settings.http_listen.host, first.http.getsockname()[1]),
        Listen(settings.smtp_listen.host, first.smtp.getsockname()[1]),
    )
    others = [
        Sockets(
            _bind("http_listen", addresses.http, shared=shared),
            _bind("smtp_listen", addresses.smtp, shared=shared),
        )
        for _ in range(settings.workers - 1)
    ]
    return [first, *others], addresses


def _bind(name: str, listen: Listen, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((listen.host, listen.port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = f"an address of this machine whose port is free ({error})"
        raise SettingError(name, str(listen), "the settings", reason) from None
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
