"""The SMTP server: the connection limits, the timeouts, and what all its connections share."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sendback.fairness import ConnectionRegister
from sendback.log_limits import LogLimiter
from sendback.service.faults.faults import Faults
from sendback.service.receiving.acceptance import Acceptance
from sendback.service.receiving.receiving import Receiving
from sendback.smtp import replies
from sendback.smtp.client_address import address_literal, network
from sendback.smtp.connection import SmtpConnection
from sendback.smtp.decisions import Decisions, Receivers
from sendback.smtp.disk_space import DiskSpace
from sendback.smtp.faults import SmtpFaults
from sendback.smtp.machine import RefusedCommand, SmtpMachine
from sendback.smtp.replies import Reply
from sendback.smtp.scheduling import Scheduler
from sendback.smtp.session import SessionLimits
from sendback.smtp.storing import MessageStorage
from sendback.smtp.timeouts import HIGH_LOAD, TimeoutSettings, timeouts_for

log = logging.getLogger(__name__)

# The size of the buffer that all connections read into.
_READ_OCTETS = 32 * 1024
_SWEEP_SECONDS = 0.5
_SWEEP_SLICE = 500
# A connection that was active more recently is not closed for a new one (`fairness`).
_MIN_IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """The settings of one process's server.

    `max_client_connections` is for the network of a client. Of the disk that `directory` is on,
    `min_free` octets stay free. `test_verdicts`: a client may give the verdicts on its message.
    """

    hostname: str
    limits: SessionLimits
    max_connections: int
    max_client_connections: int
    timeouts: TimeoutSettings
    directory: Path
    min_free: int
    test_verdicts: bool = False


class SmtpServer:
    """The factory of connections for the event loop, and the register of the open ones."""

    def __init__(
        self,
        settings: SmtpSettings,
        acceptance: Acceptance,
        receiving: Receiving,
        faults: Faults,
        tls: ssl.SSLContext | None,
        report: Callable[[str, RefusedCommand], None],
    ) -> None:
        """`report` is called with the IP address of a client and what was refused."""
        self.settings = settings
        self.timeout_settings = settings.timeouts
        self.tls = tls
        self.report_refusal = report
        self.loop = asyncio.get_running_loop()
        self.connections: set[SmtpConnection] = set()
        self.register: ConnectionRegister[SmtpConnection] = ConnectionRegister(
            settings.max_connections, settings.max_client_connections, _MIN_IDLE_SECONDS
        )
        self.scheduler = Scheduler(self.loop.call_later)
        self.read_buffer = memoryview(bytearray(_READ_OCTETS))
        self.decisions = Decisions(acceptance)
        self.faults = SmtpFaults(faults)
        self._space = DiskSpace(settings.directory, settings.min_free)
        self.storage = MessageStorage(receiving, self._space, self._warn)
        self._normal_timeouts = timeouts_for(settings.timeouts, high_load=False)
        self._high_load_timeouts = timeouts_for(settings.timeouts, high_load=True)
        self.timeouts = self._normal_timeouts  # those in effect
        self._limiter = LogLimiter()
        self._is_shutting_down = False
        self._is_sweeping = False

    def __call__(self) -> SmtpConnection:
        return SmtpConnection(self)

    async def shut_down(self, seconds: float) -> None:
        """End every session, after the replies to messages that are being stored.

        New clients are refused. Connections that are open after `seconds` are aborted.
        """
        self._is_shutting_down = True
        self._for_each(self.connections, SmtpConnection.shut_down)
        deadline = self.loop.time() + seconds
        while self.connections and self.loop.time() < deadline:
            await asyncio.sleep(0.02)
        self._for_each(self.connections, SmtpConnection.abort)

    # --- for the connections --------------------------------------------------------------

    def new_machine(self, client_ip: str) -> SmtpMachine[Receivers]:
        """Return the SMTP machine of a new connection."""
        return SmtpMachine(
            hostname=self.settings.hostname,
            client_ip=address_literal(client_ip),
            limits=self.settings.limits,
            offers_tls=self.tls is not None,
            space=self._space,
            offers_verdicts=self.settings.test_verdicts,
        )

    def enter(self, connection: SmtpConnection, client_ip: str) -> Reply | None:
        """Register a connection, perhaps closing another one; return a refusal or None."""
        if self._is_shutting_down:
            return replies.SHUTTING_DOWN
        admission = self.register.admit(connection, network(client_ip), self.loop.time())
        if admission.close is not None:
            self._for_each([admission.close], lambda other: other.end(replies.CONNECTION_REPLACED))
        if not admission.admitted:
            return replies.TOO_MANY_CONNECTIONS
        self.connections.add(connection)
        self._count()
        if not self._is_sweeping:
            self._sweep()
        return None

    def leave(self, connection: SmtpConnection) -> None:
        """Remove a connection that has ended."""
        self.register.remove(connection)
        self.connections.discard(connection)
        self._count()

    def _count(self) -> None:
        high_load = len(self.connections) > HIGH_LOAD * self.settings.max_connections
        self.timeouts = self._high_load_timeouts if high_load else self._normal_timeouts

    # --- the log --------------------------------------------------------------------------

    def log_client(self, event: str, client_ip: str, reason: Reply | Exception) -> None:
        """Log what a client has caused, at a limited rate for each network."""
        more = self._limiter.check(network(client_ip), self.loop.time())
        if more is not None:
            text = f"{reason.code} {reason.lines[0]}" if isinstance(reason, Reply) else str(reason)
            log.info("%s client=%s reason=%r%s", event, client_ip, text, more)

    def log_failure(self, event: str, error: BaseException) -> None:
        """Log a fault of the program."""
        more = self._limiter.check(event, self.loop.time())
        if more is not None:
            log.error("%s%s", event, more, exc_info=error)

    def _warn(self, event: str, error: Exception) -> None:
        """Log an expected failure, such as a full disk."""
        more = self._limiter.check(event, self.loop.time())
        if more is not None:
            log.warning("%s reason=%r%s", event, str(error), more)

    # --- time -----------------------------------------------------------------------------

    def _sweep(self) -> None:
        """Disconnect clients whose deadline has passed; one timer for all connections."""
        self._space.refresh()
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
        self, connections: Iterable[SmtpConnection], action: Callable[[SmtpConnection], None]
    ) -> None:
        """Call `action` with each connection; one that fails must not stop the others."""
        for connection in list(connections):
            try:
                action(connection)
            except Exception as error:  # noqa: BLE001 - any exception is the connection's to handle
                connection.fail(error)
