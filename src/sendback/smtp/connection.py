"""One client's connection: octets between the socket, TLS and the SMTP machine.

Theory of operation. What is read goes to the machine, through TLS once that has begun. `_run` lets
the machine work for a slice; what is left waits for a turn (`turns`). A question of the machine is
answered at once or by a task, at most one at a time. While octets wait for a task, a turn or a
client that does not read its replies, nothing more is read: a connection never holds more than
one read. What SMTP means is decided in `protocol`, who may connect in `server`.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from sendback.service.receiving.acceptance import Receiver, Refusal
from sendback.service.receiving.receiving import HeaderTooLargeError, HopLimitError
from sendback.service.receiving.spool import Spool
from sendback.smtp import protocol, replies
from sendback.smtp.protocol import LineRun, SmtpMachine
from sendback.smtp.replies import Reply
from sendback.smtp.timeouts import SessionTimes
from sendback.smtp.tls import TlsLayer
from sendback.smtp.turns import SLICE_UNITS
from sendback.store.engine.errors import StoreUnavailableError

if TYPE_CHECKING:
    from sendback.smtp.server import SmtpServer

# Octets that wait in the process for a client to read them; the kernel has more.
_WRITE_BUFFER = 16 * 1024
# A client that does not read its last reply is waited for this long.
_CLOSE_SECONDS = 5.0
_HANDSHAKE_SECONDS = 30.0  # or as long as for a command, if that is less
# How exactly the register of connections knows since when this one is idle.
_ACTIVE_SECONDS = 1.0
# Recipients are looked up in the store. A client that guesses addresses waits for each further one.
_UNKNOWN_AT_ONCE = 10
_UNKNOWN_SECONDS = 1.0

# Units of work (`turns`), about 10 µs each.
_CONTENT_OCTETS = 8 * 1024  # that cost one
_RECIPIENT_UNITS = 4
_HANDSHAKE_UNITS = 50

_REFUSALS = {
    Refusal.UNKNOWN: replies.NO_SUCH_RECIPIENT,
    Refusal.BLOCKED: replies.CLIENT_REFUSED,
    Refusal.TLS_REQUIRED: replies.TLS_REQUIRED,
}
# Why a message is not kept, and the reply to its content.
_FAILURES: dict[type[Exception], Reply] = {
    StoreUnavailableError: replies.NO_STORAGE,
    OSError: replies.NO_STORAGE,
    HeaderTooLargeError: replies.HEADER_TOO_LARGE,
    HopLimitError: replies.TOO_MANY_HOPS,
}


class SmtpConnection(asyncio.BufferedProtocol):
    """The event loop's protocol for one connection."""

    # Where every connection begins; as attributes of the class they cost nothing to set.
    _transport: asyncio.Transport | None = None
    _tls: TlsLayer | None = None
    _handshake_began: float | None = None  # None: no handshake is under way
    _spool: Spool | None = None
    _task: asyncio.Task[None] | None = None
    _waiting_since = 0.0
    _active_at = 0.0
    _is_keeping = False  # a message; such a task is never cancelled
    _is_queued = False
    _is_paused = False
    _is_closing = False
    _is_shutting_down = False
    _client_reads = True
    _is_greeted = False
    _unknown_recipients = 0
    # From `connection_made` on.
    _client_ip: str
    _machine: SmtpMachine
    _times: SessionTimes

    def __init__(self, server: "SmtpServer") -> None:
        self._server = server
        self._loop = server.loop

    # --- the event loop's calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        peer = transport.get_extra_info("peername")
        self._client_ip = _client_address(str(peer[0])) if peer else "unknown"
        self._machine = self._server.new_machine(self._client_ip)
        self._active_at = self._loop.time()
        self._times = SessionTimes(self._active_at)
        refusal = self._server.enter(self, self._client_ip)
        if refusal is not None:
            self._turn_away(refusal)
            return
        admitted = self._server.acceptance.known_admission(self._client_ip)
        if admitted is None:
            self._start(self._find_admission())
        elif admitted:
            self._greet()
        else:
            self._turn_away(replies.CLIENT_BLOCKED)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """All connections read into one buffer: what is in it is taken in `buffer_updated`."""
        return self._server.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        data = self._server.read_buffer[:nbytes].tobytes()
        if self._tls is None:
            self._machine.receive(data)
        else:
            self._tls.receive(data)
        self._work()

    def pause_writing(self) -> None:
        """A client that reads no replies causes no more: they would fill the memory."""
        self._client_reads = False

    def resume_writing(self) -> None:
        self._client_reads = True
        self._work()

    def eof_received(self) -> bool:
        return False  # a client that has closed its side waits for no answer

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._transport = None
        self._is_closing = True
        self._server.leave(self)
        if self._task is None:
            self._drop_content()
        elif not self._is_keeping:
            self._task.cancel()

    @property
    def octets_held(self) -> int:
        """How many octets of the session are in this process's buffers, but for its content."""
        unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
        encrypted = self._tls.pending if self._tls is not None else 0
        return self._machine.buffered + encrypted + unsent

    # --- work -----------------------------------------------------------------------------

    def _work(self) -> None:
        """Do a slice of what there is to do, or wait for a turn."""
        if self._task is None and not self._is_queued and self._can_work():
            turns, now = self._server.turns, self._loop.time()
            if turns.may_go_first(now):
                turns.spent += self._run(now)
            else:
                self._queue()
        if self._is_paused or self._machine.buffered or self._tls is not None:
            self._regulate_reading()

    def take_turn(self) -> int:
        """Do a slice of work; see `turns.Worker`."""
        self._is_queued = False
        spent = self._run(self._loop.time()) if self._can_work() else 0
        self._regulate_reading()
        return spent

    def _queue(self) -> None:
        self._is_queued = True
        self._server.turns.queue(self)

    def break_off(self, error: Exception) -> None:
        """Its turn has raised this."""
        self._server.log_failure("an SMTP session failed", error)
        self.abort()

    def _can_work(self) -> bool:
        """Whether neither a task nor a reading client is needed first."""
        return self._task is None and not self._is_closing and self._client_reads

    def _run(self, now: float) -> int:
        """Work for about a slice, and queue for the rest; return the cost in units."""
        if self._handshake_began is not None:
            return self._shake_hands()
        machine, times = self._machine, self._times
        lines, octets = machine.lines, machine.content_octets
        spent = self._run_machine(machine)
        self._flush()
        if machine.is_reading_content:
            came = max(machine.content_octets - octets, 0)
            times.content_came(came, now, self._server.allowed)
        elif machine.lines != lines:
            times.heard = now
        if times.heard - self._active_at >= _ACTIVE_SECONDS:
            self._active_at = now
            self._server.register.active(self, now)
        return spent

    def _run_machine(self, machine: SmtpMachine) -> int:
        spent = 0
        while spent < SLICE_UNITS:
            event = machine.next_event()
            if event is not None:
                spent += 1 if type(event) is LineRun else self._handle(event)
                if self._task is not None or self._is_closing:
                    return spent
            elif (self._tls is None and not machine.has_much_output) or not self._make_ready():
                return spent
        self._queue()
        return spent

    def _make_ready(self) -> bool:
        """Whether the machine can go on once its replies are written, or more is decrypted."""
        if self._machine.has_much_output:
            self._flush()
            return self._client_reads
        if self._tls is not None and self._tls.has_input:
            self._decrypt()
            return not self._is_closing
        return False

    def _handle(self, event: protocol.Event) -> int:  # noqa: C901 - one case an event
        """Return the cost, in units."""
        match event:
            case protocol.RecipientAsked():
                self._ask_for_receivers(event)
                return _RECIPIENT_UNITS
            case protocol.ContentStarted():
                self._spool = self._server.receiving.spool()
            case protocol.ContentReceived():
                self._write(event.content)
                return 1 + len(event.content) // _CONTENT_OCTETS
            case protocol.MessageEnded():
                self._end_content(event)
                return 1 + len(event.content) // _CONTENT_OCTETS
            case protocol.ContentDropped():
                self._drop_content()
                if not self._machine.is_reading_content:
                    self._times.message_ended(self._loop.time())
            case protocol.TlsAsked():
                self._begin_tls()
            case protocol.ConnectionEnded():
                self._flush()
                self._close()
        return 1

    # --- questions ------------------------------------------------------------------------

    def _start(self, work: Coroutine[Any, Any, None], *, held: bool = True) -> None:
        """`held`: the connection is not closed for another one meanwhile."""
        self._waiting_since = self._loop.time()
        if held:
            self._server.register.hold(self)
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._task, self._is_keeping = None, False
        now = self._loop.time()
        self._times.made_to_wait(self._waiting_since, now)
        self._server.register.release(self, now)
        error = None if task.cancelled() else task.exception()
        if self._transport is None:
            self._drop_content()
        if error is not None:
            self._server.log_failure("an SMTP session failed", error)
            self.end(replies.INTERNAL_ERROR)
        elif self._is_shutting_down:
            self.end(replies.SHUTTING_DOWN)
        else:
            self._flush()
            self._work()

    async def _find_admission(self) -> None:
        """IP filters come before the greeting; without a store nobody can be served."""
        try:
            admitted = await self._server.acceptance.admits(self._client_ip)
        except StoreUnavailableError:
            self._turn_away(replies.NOT_READY)
            return
        if admitted:
            self._greet()
        else:
            self._turn_away(replies.CLIENT_BLOCKED)

    def _greet(self) -> None:
        self._is_greeted = True
        self._flush()

    def _ask_for_receivers(self, event: protocol.RecipientAsked) -> None:
        """At once when they are known: a task for every recipient costs more than its answer."""
        known = self._server.acceptance.known_receivers(event.recipient.address)
        if known is not None:
            self._decide_recipient(event, known)
        elif self._unknown_recipients < _UNKNOWN_AT_ONCE:
            self._start(self._find_receivers(event))
        else:
            self._start(self._find_receivers_later(event), held=False)

    async def _find_receivers_later(self, event: protocol.RecipientAsked) -> None:
        await asyncio.sleep(_UNKNOWN_SECONDS)
        await self._find_receivers(event)

    async def _find_receivers(self, event: protocol.RecipientAsked) -> None:
        try:
            found = await self._server.acceptance.receivers(event.recipient.address)
        except StoreUnavailableError:
            self._machine.refuse(replies.NO_STORAGE)
            return
        self._decide_recipient(event, found)

    def _decide_recipient(
        self, event: protocol.RecipientAsked, receivers: tuple[Receiver, ...]
    ) -> None:
        decision = self._server.acceptance.decide(
            receivers,
            event.recipient.address,
            self._client_ip,
            encrypted=self._machine.is_encrypted,
        )
        if isinstance(decision, Refusal):
            self._unknown_recipients += decision is Refusal.UNKNOWN
            self._machine.refuse(_REFUSALS[decision])
        else:
            self._machine.accept_recipient(decision)

    def _end_content(self, event: protocol.MessageEnded) -> None:
        self._times.message_ended(self._loop.time())
        self._write(event.content)
        self._is_keeping = True
        self._start(self._keep_message(event))

    async def _keep_message(self, event: protocol.MessageEnded) -> None:
        try:
            answer = await self._receive(event)
        finally:
            self._drop_content()
        if isinstance(answer, Reply):
            self._machine.refuse(answer)
        else:
            self._machine.message_kept(answer)

    async def _receive(self, event: protocol.MessageEnded) -> str | Reply:
        if self._spool is None:  # it could not be written
            return replies.NO_STORAGE
        keeping = self._server.keeping
        receivers = [cast("tuple[Receiver, ...]", note) for note in event.notes]
        try:
            if not keeping.try_enter():
                await keeping.enter()
            try:
                return await self._server.receiving.receive(event.envelope, receivers, self._spool)
            finally:
                keeping.leave()
        except tuple(_FAILURES) as error:
            answer = next(reply for kind, reply in _FAILURES.items() if isinstance(error, kind))
            if not answer.is_error:
                self._server.warn("a message could not be kept", error)
            return answer

    # --- TLS ------------------------------------------------------------------------------

    def _begin_tls(self) -> None:
        """From here on all that is read is TLS; the machine has dropped what was not."""
        context = self._server.tls
        self._flush()
        if context is not None:  # or the machine would not have offered it
            self._tls = TlsLayer(context)
            self._handshake_began = self._loop.time()

    def _shake_hands(self) -> int:
        """Return the cost, in units."""
        tls = self._tls
        if tls is None or not tls.has_input:
            return 0
        try:
            version = tls.shake_hands()
        except ssl.SSLError as error:
            self._break_tls("TLS handshake", error)
            return _HANDSHAKE_UNITS
        self._write_out(tls.take_output())
        if version is not None:
            self._handshake_began = None
            self._times.heard = self._loop.time()
            self._machine.tls_started(version)
            self._queue()  # the client may have spoken behind its end of the handshake
        return _HANDSHAKE_UNITS

    def _decrypt(self) -> None:
        if self._tls is None:
            return
        try:
            self._machine.receive(self._tls.read())
        except ssl.SSLZeroReturnError:  # the client says that nothing follows
            self._close()
        except ssl.SSLError as error:
            self._break_tls("TLS", error)

    def _break_tls(self, what: str, error: ssl.SSLError) -> None:
        line = f"{what} with {self._client_ip} failed: {error}"
        self._server.log_client(self._client_ip, line)
        if self._tls is not None:
            self._write_out(self._tls.take_output())  # the alert
        self._is_closing = True
        self._close_transport()

    # --- helpers --------------------------------------------------------------------------

    def _write(self, content: bytes) -> None:
        """Content that cannot be stored is dropped; the reply comes at its end."""
        if self._spool is None:
            return
        try:
            self._server.space.take(len(content))
            self._spool.write(content)
        except OSError as error:
            self._server.warn("the content of a message could not be stored", error)
            self._drop_content()

    def _drop_content(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _flush(self) -> None:
        output = self._machine.take_output()
        if not output:
            return
        if self._tls is not None:
            self._tls.write(output)
            output = self._tls.take_output()
        self._write_out(output)

    def _write_out(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def _regulate_reading(self) -> None:
        """While octets wait in this process, no more are read."""
        if self._transport is None or self._is_closing:
            return
        waits = self._machine.buffered > 0 or (self._tls is not None and self._tls.has_input)
        if waits and not self._is_paused:
            self._transport.pause_reading()
        elif self._is_paused and not waits:
            self._transport.resume_reading()
        self._is_paused = waits

    # --- ends -----------------------------------------------------------------------------

    def check_time(self, now: float) -> None:
        """Cut the client off if it has made no progress for too long."""
        if self._task is not None or self._is_closing:  # the client waits for us, not we for it
            return
        allowed = self._server.allowed
        if self._handshake_began is not None:
            ends_at = self._handshake_began + min(_HANDSHAKE_SECONDS, allowed.idle)
        else:
            ends_at = self._times.ends_at(
                self._server.settings.timeouts,
                allowed,
                in_transaction=self._machine.is_in_transaction,
            )
        if now >= ends_at:
            self.end(replies.TIMED_OUT)

    def shut_down(self) -> None:
        """End the session, after the reply to a message that is being kept."""
        self._is_shutting_down = True
        if not self._is_keeping:
            self.end(replies.SHUTTING_DOWN)

    def end(self, answer: Reply) -> None:
        """Send a last reply and close. A client that is in a TLS handshake gets none."""
        if self._is_closing or self._transport is None:
            return
        if self._handshake_began is not None or not self._client_reads:
            self.abort()
            return
        if not self._is_greeted:
            self._turn_away(answer)
            return
        self._machine.end(answer)
        self._flush()
        self._close()

    def _turn_away(self, answer: Reply) -> None:
        """RFC 5321 §3.1: a greeting that is a refusal."""
        line = f"client {self._client_ip} was turned away: {answer.code} {answer.lines[0]}"
        self._server.log_client(self._client_ip, line)
        self._is_closing = True
        self._write_out(answer.wire)
        self._close_transport()

    def _close(self) -> None:
        self._is_closing = True
        if self._tls is not None:
            self._tls.close()
            self._write_out(self._tls.take_output())
        self._close_transport()

    def _close_transport(self) -> None:
        if self._transport is None:
            return
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(_CLOSE_SECONDS, self.abort)

    def abort(self) -> None:
        """Close at once, whatever there is to say."""
        self._is_closing = True
        if self._transport is not None:
            self._transport.abort()


@lru_cache(maxsize=4096)
def _client_address(host: str) -> str:
    """Return the client's IP address, in one spelling for filters, SPF and the envelope.

    A client that reaches an IPv6 socket by IPv4 has its IPv4 address; an interface (`%eth0`) is
    left out.
    """
    text = host.partition("%")[0]
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return text
    return str(address.ipv4_mapped or address)
