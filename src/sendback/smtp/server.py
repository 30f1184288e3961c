"""The transport around the SMTP machine: sockets, TLS, time-outs, limits on connections.

It carries octets to the machine and answers the machine's questions with the receiving service.
What SMTP means is decided in `protocol`, not here.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, cast

from sendback.service.acceptance import Acceptance, Receiver, Refusal
from sendback.service.receiving import HeaderTooLargeError, HopLimitError, Receiving
from sendback.service.spool import Spool
from sendback.smtp import protocol, replies
from sendback.smtp.protocol import Limits, SmtpMachine
from sendback.smtp.replies import Reply
from sendback.store.errors import StoreUnavailableError

log = logging.getLogger(__name__)

# Reading stops while this much waits to be worked off.
_BUFFER_OCTETS = 64 * 1024

_REFUSALS = {
    Refusal.UNKNOWN: replies.NO_SUCH_RECIPIENT,
    Refusal.BLOCKED: replies.CLIENT_REFUSED,
    Refusal.TLS_REQUIRED: replies.TLS_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """Time-outs in seconds; connections are counted in this process."""

    hostname: str
    limits: Limits
    max_connections: int
    max_client_connections: int
    idle_timeout: float
    session_timeout: float


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
        self.connections: set[SmtpConnection] = set()
        self.clients: Counter[str] = Counter()

    def __call__(self) -> "SmtpConnection":
        return SmtpConnection(self)

    async def shut_down(self, seconds: float) -> None:
        """Tells every client to go; messages that are just being kept get their answer first."""
        for connection in list(self.connections):
            connection.shut_down()
        deadline = asyncio.get_running_loop().time() + seconds
        while self.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.abort()


class SmtpConnection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._machine: SmtpMachine | None = None
        self._client_ip = ""
        self._spool: Spool | None = None
        self._storage_failed = False
        self._task: asyncio.Task[None] | None = None
        self._paused = False
        self._client_reads = True
        self._early: list[bytes] | None = None
        self._shutting_down = False
        self._counted = False
        self._timer: asyncio.TimerHandle | None = None
        self._last_activity = 0.0
        self._ends_at = 0.0

    # --- the event loop's calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._machine is not None:  # the same session again, now inside TLS
            self._transport = cast("asyncio.Transport", transport)
            return
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._client_ip = str(peer[0]) if peer else "unknown"
        if not self._count():
            self._transport.write(replies.TOO_MANY_CONNECTIONS.wire)
            self._transport.close()
            return
        admitted = self._server.acceptance.known_admission(self._client_ip)
        if admitted is None:
            self._early = []
            self._transport.pause_reading()
            self._start(self._ask_for_admission())
        elif admitted:
            self._begin()
        else:
            self._turn_away(replies.CLIENT_BLOCKED)

    async def _ask_for_admission(self) -> None:
        """IP filters come before the greeting; without a store nobody can be served."""
        try:
            admitted = await self._server.acceptance.admits(self._client_ip)
        except StoreUnavailableError:
            self._turn_away(replies.NOT_READY)
            return
        if self._transport is None:
            return
        if admitted:
            self._transport.resume_reading()
            self._early = None
            self._begin()
        else:
            self._turn_away(replies.CLIENT_BLOCKED)

    def _turn_away(self, answer: Reply) -> None:
        """RFC 5321 §3.1: a greeting that is a refusal."""
        log.info("client %s was turned away: %d", self._client_ip, answer.code)
        if self._transport is not None:
            self._transport.write(answer.wire)
            self._transport.close()

    def _begin(self) -> None:
        settings = self._server.settings
        self._machine = SmtpMachine(
            hostname=settings.hostname,
            client_ip=_literal(self._client_ip),
            limits=settings.limits,
            offers_tls=self._server.tls is not None,
        )
        self._last_activity = self._loop.time()
        self._ends_at = self._last_activity + settings.session_timeout
        self._timer = self._loop.call_later(settings.idle_timeout, self._check_time)
        self._advance()

    def data_received(self, data: bytes) -> None:
        self._last_activity = self._loop.time()
        if self._early is not None:
            self._early.append(data)
            return
        if self._machine is None:
            return
        self._machine.receive(data)
        if self._task is None:
            self._advance()
        self._regulate_reading()

    def pause_writing(self) -> None:
        """A client that reads no replies is asked no more: they would fill the memory."""
        self._client_reads = False
        self._regulate_reading()

    def resume_writing(self) -> None:
        self._client_reads = True
        if self._task is None:
            self._advance()
        self._regulate_reading()

    def eof_received(self) -> bool:
        return False  # a client that has closed its side waits for no answer

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._transport = None
        if self._timer:
            self._timer.cancel()
        if self._task is None:
            self._drop_content()
        if self._counted:
            self._server.connections.discard(self)
            self._server.clients[self._client_ip] -= 1
            if not self._server.clients[self._client_ip]:
                del self._server.clients[self._client_ip]

    # --- the machine's events -------------------------------------------------------------

    def _advance(self) -> None:
        """Works off what the machine has, until it waits for octets or for an answer."""
        machine = self._machine
        while machine is not None and self._task is None and self._client_reads:
            event = machine.next_event()
            if event is not None:
                self._handle(event)
            elif not self._flush() or not machine.buffered:
                break
        self._flush()
        if self._shutting_down and self._task is None and machine is not None:
            self._say_goodbye()

    def _handle(self, event: protocol.Event) -> None:  # noqa: C901 - one case an event
        match event:
            case protocol.RecipientAsked():
                self._ask_for_receivers(event)
            case protocol.ContentStarted():
                self._spool = self._server.receiving.spool()
                self._storage_failed = False
            case protocol.ContentReceived():
                self._write(event.content)
            case protocol.MessageEnded():
                self._write(event.content)
                self._start(self._keep_message(event))
            case protocol.ContentDropped():
                self._drop_content()
            case protocol.TlsAsked():
                self._flush()
                self._start(self._start_tls())
            case protocol.ConnectionEnded():
                self._flush()
                if self._transport:
                    self._transport.close()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._last_activity = self._loop.time()
        if not task.cancelled() and task.exception() is not None:
            log.error("an SMTP session failed", exc_info=task.exception())
            if self._machine is None:
                self.abort()
            else:
                self._machine.end(replies.INTERNAL_ERROR)
        if self._transport is None:
            self._drop_content()
            return
        self._advance()
        self._regulate_reading()

    def _ask_for_receivers(self, event: protocol.RecipientAsked) -> None:
        """At once when they are known: a task for every recipient costs more than its answer."""
        known = self._server.acceptance.known_receivers(event.recipient.address)
        if known is None:
            self._start(self._find_receivers(event))
        else:
            self._decide_recipient(event, known)

    async def _find_receivers(self, event: protocol.RecipientAsked) -> None:
        try:
            found = await self._server.acceptance.receivers(event.recipient.address)
        except StoreUnavailableError:
            self._require_machine().refuse(replies.NO_STORAGE)
            return
        self._decide_recipient(event, found)

    def _decide_recipient(
        self, event: protocol.RecipientAsked, receivers: tuple[Receiver, ...]
    ) -> None:
        machine = self._require_machine()
        decision = self._server.acceptance.decide(
            receivers,
            event.recipient.address,
            self._client_ip,
            encrypted=machine.is_encrypted,
        )
        if isinstance(decision, Refusal):
            machine.refuse(_REFUSALS[decision])
        else:
            machine.accept_recipient(decision)

    async def _keep_message(self, event: protocol.MessageEnded) -> None:
        machine = self._require_machine()
        answer = await self._receive(event)
        self._drop_content()
        if isinstance(answer, Reply):
            machine.refuse(answer)
        else:
            machine.message_kept(answer)

    async def _receive(self, event: protocol.MessageEnded) -> str | Reply:
        if self._spool is None or self._storage_failed:
            return replies.NO_STORAGE
        receivers = [cast("tuple[Receiver, ...]", note) for note in event.notes]
        try:
            return await self._server.receiving.receive(event.envelope, receivers, self._spool)
        except (StoreUnavailableError, OSError) as error:
            log.warning("a message was refused for want of storage: %s", error)
            return replies.NO_STORAGE
        except HeaderTooLargeError:
            return replies.HEADER_TOO_LARGE
        except HopLimitError:
            return replies.TOO_MANY_HOPS

    async def _start_tls(self) -> None:
        machine = self._require_machine()
        if self._transport is None or self._server.tls is None:
            return
        # From here on only what was inside TLS reaches `data_received`, and it may come before this
        # task goes on: a client may speak in the same packet that ends the handshake. What came in
        # clear before this was dropped by the machine (CVE-2011-0411).
        self._early = []
        try:
            transport = await self._loop.start_tls(
                self._transport, self, self._server.tls, server_side=True
            )
        except (OSError, ssl.SSLError) as error:
            log.info("TLS handshake with %s failed: %s", self._client_ip, error)
            self.abort()
            return
        if transport is None:  # the client went away during the handshake
            return
        self._transport = transport
        connection = transport.get_extra_info("ssl_object")
        machine.tls_started(connection.version() or "TLS")
        early, self._early = self._early, None
        for data in early:
            machine.receive(data)

    # --- helpers --------------------------------------------------------------------------

    def _count(self) -> bool:
        server, settings = self._server, self._server.settings
        if (
            len(server.connections) >= settings.max_connections
            or server.clients[self._client_ip] >= settings.max_client_connections
        ):
            log.warning("too many connections, refused %s", self._client_ip)
            return False
        server.connections.add(self)
        server.clients[self._client_ip] += 1
        self._counted = True
        return True

    def _require_machine(self) -> SmtpMachine:
        if self._machine is None:
            raise RuntimeError("the session has not begun")
        return self._machine

    def _write(self, content: bytes) -> None:
        if self._spool is None or self._storage_failed:
            return
        try:
            self._spool.write(content)
        except OSError as error:
            log.warning("the content of a message could not be spooled: %s", error)
            self._storage_failed = True

    def _drop_content(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _flush(self) -> bool:
        """Whether there was anything to write."""
        if self._machine is None or self._transport is None:
            return False
        output = self._machine.take_output()
        if output:
            self._transport.write(output)
        return bool(output)

    def _regulate_reading(self) -> None:
        if self._machine is None or self._transport is None or self._transport.is_closing():
            return
        full = self._machine.buffered > _BUFFER_OCTETS or not self._client_reads
        if full and not self._paused:
            self._transport.pause_reading()
        elif self._paused and not full:
            self._transport.resume_reading()
        self._paused = full

    # --- ends -----------------------------------------------------------------------------

    def _check_time(self) -> None:
        """One timer a connection, moved on when it finds activity: cheaper than one a line."""
        now, idle = self._loop.time(), self._server.settings.idle_timeout
        if self._task is not None:  # the client waits for us, not we for it
            self._last_activity = now
        left = min(self._last_activity + idle, self._ends_at) - now
        if left > 0 or self._task is not None:
            self._timer = self._loop.call_later(max(left, 1.0), self._check_time)
            return
        self._require_machine().end(replies.TIMED_OUT)
        self._advance()
        if not self._client_reads:  # it would not read its farewell either
            self.abort()

    def shut_down(self) -> None:
        """Ends the session, after the answer to a message that is just being kept."""
        self._shutting_down = True
        if self._task is None:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        self._shutting_down = False
        self._require_machine().end(replies.SHUTTING_DOWN)
        self._advance()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _literal(ip: str) -> str:
    """As it stands in an address literal (RFC 5321 §4.1.3)."""
    return f"IPv6:{ip}" if ":" in ip else ip
