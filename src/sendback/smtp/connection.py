"""One client's connection: it drives the SMTP machine with what the client sends.

Theory of operation. The octets that `channel` reads go to the machine. `_run` processes events for
a slice; the rest waits for the scheduler (`scheduling`). The machine's decisions are made at once,
or by a task, at most one at a time. While octets wait for a task, for the scheduler or for a client
that does not read its replies, reading is paused: a connection never holds more than one read. What
SMTP means is decided in `machine`, what is accepted in `decisions`, who may connect in `server`.
"""

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any, Protocol, cast

from sendback.fairness import ConnectionRegister
from sendback.faults.model import Point
from sendback.mail.address import Address
from sendback.smtp import events, replies
from sendback.smtp.channel import Channel
from sendback.smtp.client_address import client_address
from sendback.smtp.decisions import Decisions, Receivers
from sendback.smtp.events import LineProcessed, NoEvent
from sendback.smtp.faults import COMMAND_POINTS, Drop, SmtpFaults
from sendback.smtp.machine import RefusedCommand, SmtpMachine
from sendback.smtp.replies import Reply
from sendback.smtp.scheduling import SLICE_UNITS, Scheduler
from sendback.smtp.storing import IncomingContent, MessageStorage
from sendback.smtp.timeouts import SessionProgress, Timeouts, TimeoutSettings

_HANDSHAKE_SECONDS = 30.0  # or the timeout for a command, if that is less
# Interval at which the register of connections is informed of activity.
_ACTIVE_SECONDS = 1.0
# Recipients are looked up in the store. A client that guesses addresses is delayed from this many
# unknown ones on.
_UNKNOWN_AT_ONCE = 10
_UNKNOWN_SECONDS = 1.0

# Units of work (`scheduling`), about 10 µs each.
_CONTENT_OCTETS = 8 * 1024  # that cost one
_RECIPIENT_UNITS = 4
_HANDSHAKE_UNITS = 50


class ConnectionHost(Protocol):
    """What a connection uses of its server; everything in it is shared by all connections."""

    timeout_settings: TimeoutSettings
    loop: asyncio.AbstractEventLoop
    read_buffer: memoryview
    register: ConnectionRegister["SmtpConnection"]
    scheduler: Scheduler
    decisions: Decisions
    faults: SmtpFaults
    storage: MessageStorage
    timeouts: Timeouts
    tls: ssl.SSLContext | None

    def new_machine(self, client_ip: str) -> SmtpMachine[Receivers]: ...

    def enter(self, connection: "SmtpConnection", client_ip: str) -> Reply | None: ...

    def leave(self, connection: "SmtpConnection") -> None: ...

    def log_client(self, event: str, client_ip: str, reason: Reply | Exception) -> None: ...

    def report_refusal(self, client_ip: str, refusal: RefusedCommand) -> None: ...

    def log_failure(self, event: str, error: BaseException) -> None: ...


class SmtpConnection(asyncio.BufferedProtocol):
    """The event loop's protocol for one connection."""

    # Initial values; as attributes of the class they cost nothing to set.
    _content: IncomingContent | None = None
    _task: asyncio.Task[None] | None = None
    _waiting_since = 0.0
    _active_at = 0.0
    _is_storing = False  # a message; such a task is never cancelled
    _is_queued = False
    _is_shutting_down = False
    _is_greeted = False
    _unknown_recipients = 0
    # Set by `connection_made`.
    _channel: Channel
    _client_ip: str
    _machine: SmtpMachine[Receivers]
    _progress: SessionProgress

    def __init__(self, server: ConnectionHost) -> None:
        self._server = server
        self._loop = server.loop

    # --- the event loop's calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._channel = Channel(self._loop, cast("asyncio.Transport", transport))
        peer = transport.get_extra_info("peername")
        self._client_ip = client_address(str(peer[0])) if peer else "unknown"
        self._machine = self._server.new_machine(self._client_ip)
        self._active_at = self._loop.time()
        self._progress = SessionProgress(self._active_at)
        refusal = self._server.enter(self, self._client_ip)
        if refusal is not None:
            self._refuse_client(refusal)
            return
        admitted = self._server.decisions.known_client(self._client_ip)
        if admitted is None or self._server.faults.may_inject(Point.CONNECT):
            self._start(self._decide_client(), evictable=True)
        elif admitted:
            self._greet()
        else:
            self._refuse_client(replies.CLIENT_REFUSED)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """Return the one buffer of all connections: `buffer_updated` copies what was read."""
        return self._server.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._server.read_buffer[:nbytes].tobytes()
        tls = self._channel.tls
        if tls is None:
            self._machine.receive(data)
        else:
            tls.receive(data)
        self._work()

    def pause_writing(self) -> None:
        """Stop processing commands: the replies that a client does not read would fill memory."""
        self._channel.is_writable = False

    def resume_writing(self) -> None:
        self._channel.is_writable = True
        self._work()

    def eof_received(self) -> bool:
        return False  # a client that has closed its side reads no reply

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._channel.lose()
        self._server.leave(self)
        if self._task is None:
            self._discard_content()
        elif not self._is_storing:
            self._task.cancel()

    @property
    def octets_buffered(self) -> int:
        """The number of octets in this process's buffers, without the content of the message."""
        return self._machine.buffered + self._channel.buffered

    # --- work -----------------------------------------------------------------------------

    def _work(self) -> None:
        """Do a slice of work, or queue for it."""
        if self._task is None and not self._is_queued and self._can_work():
            scheduler, now = self._server.scheduler, self._loop.time()
            if scheduler.has_capacity(now):
                scheduler.used += self._run(now)
            else:
                self._queue()
        channel = self._channel
        if channel.is_paused or self._machine.buffered or channel.tls is not None:
            self._regulate_reading()

    def run_slice(self) -> int:
        """Do a slice of work; see `scheduling.Worker`."""
        self._is_queued = False
        used = self._run(self._loop.time()) if self._can_work() else 0
        self._regulate_reading()
        return used

    def fail(self, error: Exception) -> None:
        """Close the connection: a fault of the program raised this."""
        self._server.log_failure("smtp_session_failed", error)
        self.abort()

    def _queue(self) -> None:
        self._is_queued = True
        self._server.scheduler.queue(self)

    def _can_work(self) -> bool:
        channel = self._channel
        return self._task is None and not channel.is_closing and channel.is_writable

    def _run(self, now: float) -> int:
        """Work for about a slice, and queue for the rest; return the cost in units."""
        if self._channel.handshake_began is not None:
            return self._shake_hands()
        machine, progress = self._machine, self._progress
        lines, octets = machine.lines, machine.content_octets
        used = self._run_machine(machine)
        self._flush()
        if machine.is_reading_content:
            received = max(machine.content_octets - octets, 0)
            progress.content_received(received, now, self._server.timeouts)
        elif machine.lines != lines:
            progress.last = now
        if progress.last - self._active_at >= _ACTIVE_SECONDS:
            self._active_at = now
            self._server.register.active(self, now)
        return used

    def _run_machine(self, machine: SmtpMachine[Receivers]) -> int:
        used = 0
        machine.asks_about = self._server.faults.verbs
        while used < SLICE_UNITS:
            event = machine.next_event()
            if isinstance(event, LineProcessed):
                used += 1
            elif isinstance(event, NoEvent):
                if not self._can_continue(event):
                    return used
            else:
                used += self._handle(event)
                if self._task is not None or self._channel.is_closing:
                    return used
        self._queue()
        return used

    def _can_continue(self, reason: NoEvent) -> bool:
        """Return whether the machine can continue: its output is sent, or more is decrypted."""
        if reason is NoEvent.OUTPUT_FULL:
            self._flush()
            return self._channel.is_writable
        if reason is NoEvent.NEED_DATA and self._channel.has_input:
            self._decrypt()
            return not self._channel.is_closing
        return False

    def _handle(self, event: events.Event[Receivers]) -> int:  # noqa: C901 - one case an event
        """Return the cost, in units."""
        match event:
            case events.CommandReceived():
                self._start(self._decide_command(event.verb), evictable=True)
            case events.RecipientReceived():
                self._decide_recipient(event)
                return _RECIPIENT_UNITS
            case events.ContentStarted():
                self._content = self._server.storage.open()
            case events.ContentReceived():
                self._write(event.content)
                return 1 + len(event.content) // _CONTENT_OCTETS
            case events.MessageReceived():
                self._end_content(event)
                return 1 + len(event.content) // _CONTENT_OCTETS
            case events.ContentRefused():
                self._discard_content()
                if not self._machine.is_reading_content:
                    self._progress.message_ended(self._loop.time())
            case events.TlsRequested():
                self._start_tls()
            case events.SessionEnded():
                self._flush()
                self._channel.close()
        return 1

    # --- decisions ------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None], *, evictable: bool = False) -> None:
        """Start a task; `evictable`: the connection may be closed for another one meanwhile."""
        self._waiting_since = self._loop.time()
        if not evictable:
            self._server.register.protect(self)
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._task, self._is_storing = None, False
        now = self._loop.time()
        self._progress.exclude(self._waiting_since, now)
        self._server.register.release(self, now)
        error = None if task.cancelled() else task.exception()
        if self._channel.is_lost:
            self._discard_content()
        if error is not None:
            self._server.log_failure("smtp_session_failed", error)
            self.end(replies.INTERNAL_ERROR)
        elif self._is_shutting_down:
            self.end(replies.SHUTTING_DOWN)
        else:
            self._flush()
            self._work()

    async def _decide_client(self) -> None:
        server = self._server
        fault = await server.faults.decide_client(server.decisions, self._client_ip)
        if self._channel.is_closing:
            return
        if fault is None:
            self._greet()
        elif fault is Drop.CONNECTION:
            self.abort()
        else:
            self._refuse_client(fault)

    def _greet(self) -> None:
        self._is_greeted = True
        self._flush()

    def _decide_recipient(self, event: events.RecipientReceived) -> None:
        """Decide at once when possible: a task for each recipient costs more than the decision."""
        known = self._server.decisions.known_recipient(
            event.recipient.address, self._client_ip, encrypted=self._machine.is_encrypted
        )
        if known is not None and not self._server.faults.may_inject(Point.RCPT):
            self._resume(known)
        elif self._unknown_recipients < _UNKNOWN_AT_ONCE:
            self._start(self._look_up_recipient(event))
        else:
            self._start(self._look_up_recipient(event, _UNKNOWN_SECONDS), evictable=True)

    async def _look_up_recipient(
        self, event: events.RecipientReceived, delay: float | None = None
    ) -> None:
        if delay is not None:
            await asyncio.sleep(delay)
        if await self._has_failed(Point.RCPT, event.recipient.address):
            return
        decision = await self._server.decisions.recipient(
            event.recipient.address, self._client_ip, encrypted=self._machine.is_encrypted
        )
        self._resume(decision)

    def _resume(self, decision: Receivers | Reply) -> None:
        if isinstance(decision, Reply):
            self._unknown_recipients += decision is replies.NO_SUCH_RECIPIENT
            self._machine.refuse(decision)
        else:
            self._machine.accept_recipient(decision)

    def _write(self, content: bytes) -> None:
        if self._content is not None:
            self._content.write(content)

    def _end_content(self, event: events.MessageReceived[Receivers]) -> None:
        self._progress.message_ended(self._loop.time())
        self._write(event.content)
        self._is_storing = not self._server.faults.may_inject(Point.END)
        self._start(self._store_message(event))

    async def _store_message(self, event: events.MessageReceived[Receivers]) -> None:
        try:
            if not self._is_storing and await self._has_failed(Point.END):
                return
            self._is_storing = True
            result = await self._server.storage.store(event, self._content)
        finally:
            self._discard_content()
        if isinstance(result, Reply):
            self._machine.refuse(result)
        else:
            self._machine.accept_message(result)

    async def _decide_command(self, verb: str) -> None:
        if not await self._has_failed(COMMAND_POINTS[verb]):
            self._handle(self._machine.proceed())

    async def _has_failed(self, point: Point, recipient: Address | None = None) -> bool:
        """Inject a fault, if there is one here; return whether nothing else is to be done."""
        faults = self._server.faults
        fault = await faults.decide(point, self._client_ip, self._machine, recipient)
        if fault is Drop.CONNECTION:
            self.abort()
        elif fault is not None:
            self._machine.refuse(fault)
        return fault is not None or self._channel.is_closing

    def _discard_content(self) -> None:
        if self._content is not None:
            self._content.close()
            self._content = None

    # --- octets ---------------------------------------------------------------------------

    def _start_tls(self) -> None:
        context = self._server.tls
        self._flush()
        if context is not None:  # or the machine would not have offered it
            self._channel.start_tls(context, self._loop.time())

    def _shake_hands(self) -> int:
        """Return the cost, in units."""
        tls = self._channel.tls
        if tls is None or not tls.has_input:
            return 0
        try:
            version = self._channel.shake_hands(tls)
        except ssl.SSLError as error:
            self._server.log_client("smtp_tls_handshake_failed", self._client_ip, error)
            return _HANDSHAKE_UNITS
        if version is not None:
            self._progress.last = self._loop.time()
            self._machine.tls_started(version)
            self._queue()  # the packet that ended the handshake may have commands
        return _HANDSHAKE_UNITS

    def _decrypt(self) -> None:
        try:
            self._machine.receive(self._channel.decrypt())
        except ssl.SSLError as error:
            self._server.log_client("smtp_tls_failed", self._client_ip, error)

    def _flush(self) -> None:
        machine = self._machine
        output = machine.take_output()
        if output:
            self._channel.write(output)
        if machine.has_refusals:
            for refusal in machine.take_refusals():
                self._server.report_refusal(self._client_ip, refusal)

    def _regulate_reading(self) -> None:
        """Pause reading while octets wait in this process."""
        waits = self._machine.buffered > 0 or self._channel.has_input
        self._channel.set_reading(paused=waits)

    # --- ends -----------------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """Disconnect the client if its deadline has passed."""
        channel = self._channel
        if self._task is not None or channel.is_closing:  # the client waits for the server
            return
        timeouts = self._server.timeouts
        if channel.handshake_began is not None:
            deadline = channel.handshake_began + min(_HANDSHAKE_SECONDS, timeouts.idle)
        else:
            deadline = self._progress.deadline(
                self._server.timeout_settings,
                timeouts,
                in_transaction=self._machine.is_in_transaction,
            )
        if now >= deadline:
            self.end(replies.TIMED_OUT)

    def shut_down(self) -> None:
        """End the session, after the reply to a message that is being stored."""
        self._is_shutting_down = True
        if not self._is_storing:
            self.end(replies.SHUTTING_DOWN)

    def end(self, reply: Reply) -> None:
        """Send a last reply and close. A client in a TLS handshake gets none."""
        channel = self._channel
        if channel.is_closing:
            return
        if channel.handshake_began is not None or not channel.is_writable:
            self.abort()
            return
        if not self._is_greeted:
            self._refuse_client(reply)
            return
        self._machine.end(reply)
        self._flush()
        channel.close()

    def _refuse_client(self, reply: Reply) -> None:
        """Send the refusal instead of a greeting (RFC 5321 §3.1)."""
        self._server.log_client("smtp_client_refused", self._client_ip, reply)
        self._server.report_refusal(self._client_ip, RefusedCommand("", reply, None, ()))
        self._channel.write(reply.wire)
        self._channel.close()

    def abort(self) -> None:
        """Close at once, whatever is unsent."""
        self._channel.abort()
