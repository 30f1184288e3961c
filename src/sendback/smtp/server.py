"""The SMTP server: who may connect, for how long, and what all its connections share."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from sendback.fairness import ConnectionRegister
from sendback.log_limits import LogLimiter
from sendback.net.networks import client_network
from sendback.service.receiving.acceptance import Acceptance
from sendback.service.receiving.receiving import Receiving
from sendback.smtp import replies
from sendback.smtp.connection import SmtpConnection
from sendback.smtp.protocol import Limits, SmtpMachine
from sendback.smtp.replies import Reply
from sendback.smtp.space import DiskSpace
from sendback.smtp.timeouts import FULL, Timeouts, waits
from sendback.smtp.turns import Gate, Turns

log = logging.getLogger(__name__)

# What one read takes from a socket at most; all connections read into one buffer.
_READ_OCTETS = 32 * 1024
# Messages that are being stored at a time: each has up to 256 KiB in memory while it is. Others
# wait. One commit takes 128 (`store.transactions`).
_KEPT_AT_ONCE = 128
_SWEEP_SECONDS = 0.5
_SWEEP_SLICE = 500
# A connection that did something more recently is not closed for a newcomer of equal right.
_MIN_IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """Connections are counted in this process, those of a client by its network.

    Of the disk that `directory` is on, `min_free` octets are left free.
    """

    hostname: str
    limits: Limits
    max_connections: int
    max_client_connections: int
    timeouts: Timeouts
    directory: Path
    min_free: int


class SmtpServer:
    """Makes a connection's protocol for the event loop, and knows all that are open."""

    def __init__(
        self,
        settings: SmtpSettings,
        acceptance: Acceptance,
        receiving: Receiving,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.settings = settings
        self.acceptance = acceptance
        self.receiving = receiving
        self.tls = tls
        self.loop = asyncio.get_running_loop()
        self.connections: set[SmtpConnection] = set()
        self.register: ConnectionRegister[SmtpConnection] = ConnectionRegister(
            settings.max_connections, settings.max_client_connections, _MIN_IDLE_SECONDS
        )
        self.turns = Turns(self.loop.call_later)
        self.read_buffer = memoryview(bytearray(_READ_OCTETS))
        self.keeping = Gate(_KEPT_AT_ONCE)
        self.space = DiskSpace(settings.directory, settings.min_free)
        # How long clients are waited for at this moment.
        self.allowed = self._waits = waits(settings.timeouts, is_full=False)
        self._waits_when_full = waits(settings.timeouts, is_full=True)
        self._limiter = LogLimiter()
        self._is_shutting_down = False
        self._is_sweeping = False

    def __call__(self) -> SmtpConnection:
        return SmtpConnection(self)

    async def shut_down(self, seconds: float) -> None:
        """End every session; messages that are being kept get their reply first.

        Whoever connects from now on is turned away. What is open after `seconds` is aborted.
        """
        self._is_shutting_down = True
        self._for_each(self.connections, SmtpConnection.shut_down)
        deadline = self.loop.time() + seconds
        while self.connections and self.loop.time() < deadline:
            await asyncio.sleep(0.02)
        self._for_each(self.connections, SmtpConnection.abort)

    # --- for the connections --------------------------------------------------------------

    def new_machine(self, client_ip: str) -> SmtpMachine:
        """The SMTP machine of a new connection."""
        return SmtpMachine(
            hostname=self.settings.hostname,
            client_ip=_literal(client_ip),
            limits=self.settings.limits,
            offers_tls=self.tls is not None,
            space=self.space,
        )

    def enter(self, connection: SmtpConnection, client_ip: str) -> Reply | None:
        """Take a connection in, perhaps in the place of another; return a reply that refuses it."""
        if self._is_shutting_down:
            return replies.SHUTTING_DOWN
        admission = self.register.admit(connection, _network(client_ip), self.loop.time())
        if admission.close is not None:
            self._for_each([admission.close], lambda victim: victim.end(replies.MAKING_ROOM))
        if not admission.admitted:
            return replies.TOO_MANY_CONNECTIONS
        self.connections.add(connection)
        self._count()
        if not self._is_sweeping:
            self._sweep()
        return None

    def leave(self, connection: SmtpConnection) -> None:
        """The connection has ended."""
        self.register.remove(connection)
        self.connections.discard(connection)
        self._count()

    def _count(self) -> None:
        is_full = len(self.connections) > FULL * self.settings.max_connections
        self.allowed = self._waits_when_full if is_full else self._waits

    def log_client(self, client_ip: str, line: str) -> None:
        """Log what a client has caused, unless its network has caused much lately."""
        more = self._limiter.check(_network(client_ip), self.loop.time())
        if more is not None:
            log.info("%s%s", line, more)

    def warn(self, what: str, error: Exception) -> None:
        """Log a failure that is foreseen, such as a full disk."""
        more = self._limiter.check(what, self.loop.time())
        if more is not None:
            log.warning("%s: %s%s", what, error, more)

    def log_failure(self, what: str, error: BaseException) -> None:
        """Log a fault of the program."""
        more = self._limiter.check(what, self.loop.time())
        if more is not None:
            log.error("%s%s", what, more, exc_info=error)

    # --- time -----------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Look for clients to cut off; one timer for all connections, while there are any."""
        self.space.refresh()
        self._is_sweeping = bool(self.connections)
        if self._is_sweeping:
            self._sweep_some(iter(list(self.connections)))

    def _sweep_some(self, connections: Iterator[SmtpConnection]) -> None:
        some = list(islice(connections, _SWEEP_SLICE))
        now = self.loop.time()
        self._for_each(some, lambda connection: connection.check_time(now))
        if some:
            self.loop.call_soon(self._sweep_some, connections)
        else:
            self.loop.call_later(_SWEEP_SECONDS, self._sweep)

    def _for_each(
        self, connections: Iterable[SmtpConnection], do: Callable[[SmtpConnection], None]
    ) -> None:
        """One connection that fails does not keep the others from their turn."""
        for connection in list(connections):
            try:
                do(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this connection's
                connection.break_off(error)


@lru_cache(maxsize=4096)
def _network(client_ip: str) -> str:
    return client_network(client_ip)


def _literal(ip: str) -> str:
    """As it is written in an address literal (RFC 5321 §4.1.3)."""
    return f"IPv6:{ip}" if ":" in ip else ip
