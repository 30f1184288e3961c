"""HTTP connections: bounds on the time and memory of unauthenticated clients.

uvicorn's protocol on httptools, with bounds on all that uvicorn leaves unbounded. A request that
exceeds a bound is refused in SES's form, and its connection is closed:

| what | bound | refusal |
| --- | --- | --- |
| connections, in total and per network | settings | 503, or another is closed (`fairness`) |
| request target | `MAX_TARGET` octets | 414 |
| header section | `MAX_FIELDS` fields, `MAX_FIELD` octets each, `MAX_SECTION` in total | 431 |
| time until the header section, and the body, are complete | settings | 408 |
| body | `MAX_BODY` octets, `MAX_CHUNKS` chunks | 413, 400 |
| body of a request to S3, which is streamed | `MAX_UPLOAD`, `MAX_UPLOAD_CHUNKS` | 413, 400 |
| a chunk size with its extensions, a trailer field | `MAX_SECTION` octets | 431 |
| large bodies of all clients in memory | `MAX_BODIES` octets | 503 for the largest |
| requests that wait for an earlier response | `MAX_PIPELINED` | closed after these responses |
| time between requests; time in which the client reads no response | settings | closed |

Theory of operation. A connection receives requests and sends responses at the same time. Receiving
goes through the states of `_Receiving`; each has a deadline, and one timer serves all. uvicorn
sends the responses; `_cycles` are the requests that it has begun and not completed, the oldest
first. A refusal is written only when no response is in progress or pending; otherwise the
connection is closed after the pending responses. While a complete request is processed, the
connection is held: it is not closed in favour of another.

A request to upgrade the protocol is processed as if it had not asked (RFC 9110 §7.8). The parser
ends at the header section of such a request, so a new parser reads the section again, without the
Upgrade field, and then the body.

After a refusal the connection stays open for a moment and discards its input: a client that is
still sending would otherwise get a reset, and lose the refusal (RFC 9112 §9.6).
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from sendback.api.objects import is_for_objects
from sendback.api.responses import ApiResponse
from sendback.aws.errors import (
    SesError,
    malformed_http,
    request_timeout,
    request_too_large,
    service_unavailable,
)
from sendback.fairness import ConnectionRegister, OctetBudget
from sendback.log_limits import LogLimiter
from sendback.net.networks import client_network

log = logging.getLogger(__name__)

# A presigned GET can hold a SendBounce for some hundred recipients; a longer one has to be a POST.
# (httptools cannot read targets of 64 KiB.)
MAX_TARGET = 32 * 1024
MAX_FIELDS = 200
MAX_FIELD = 16 * 1024
MAX_SECTION = 64 * 1024
MAX_BODY = 2 * 2**20
# With chunks of less than half a kilobyte, function calls dominate the cost of a large body.
MAX_CHUNKS = 4096
# Uploads to S3 are not collected in memory: the application reads a body as it arrives, and beyond
# 64 KiB of it the connection is not read further. The limit is that of an object (64 MiB), which
# the application enforces in S3's form, with its division into chunks.
MAX_UPLOAD = 80 * 2**20
MAX_UPLOAD_CHUNKS = 16 * MAX_CHUNKS
# Smaller bodies are not counted, so that large ones cannot block small requests.
SMALL_BODY = 16 * 1024
MAX_BODIES = 32 * 2**20
MAX_PIPELINED = 8
# The key in the state of an ASGI scope of the function that closes the connection.
CLOSE = "close"
# Seconds for which an idle connection is not closed for a new one, unless its network has more than
# its share.
MIN_IDLE = 1.0
_LINGER_SECONDS = 2.0
_LINGER_OCTETS = 8 * 2**20


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """Limits are per process; times are in seconds."""

    max_connections: int
    max_client_connections: int
    header_timeout: float
    body_timeout: float
    idle_timeout: float


class HttpLimits:
    """The limits and counters that the connections of a process share."""

    def __init__(
        self, settings: ConnectionSettings, refuse: Callable[[SesError], ApiResponse]
    ) -> None:
        """`refuse` returns the response to an error, in SES's form."""
        self.settings = settings
        self.refuse = refuse
        self.register: ConnectionRegister[HttpConnection] = ConnectionRegister(
            settings.max_connections, settings.max_client_connections, MIN_IDLE
        )
        self.bodies: OctetBudget[HttpConnection] = OctetBudget(MAX_BODIES)
        self.log_limiter = LogLimiter()


class _Receiving(Enum):
    """The part of a request that the client is sending."""

    NOTHING = auto()  # the connection is new, or its last request is complete
    HEADER = auto()
    BODY = auto()
    DROPPED = auto()  # all input is discarded: the connection ends


class _StopError(Exception):
    """Ends the parsing. `error` is the response; None: only pending responses are sent."""

    def __init__(self, error: SesError | None) -> None:
        super().__init__()
        self.error = error


class HttpConnection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, limits: HttpLimits, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self.timeout_keep_alive = limits.settings.idle_timeout  # type: ignore[assignment]
        self._limits = limits
        self._network = ""
        self._receiving = _Receiving.NOTHING
        self._cycles: deque[RequestResponseCycle] = deque()
        self._stopped_by: _StopError | None = None
        self._now = self.loop.time()  # time of the last data, or of the event that set a deadline
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        # Of the request that is being received:
        self._has_piece = False  # the parser has reported a piece of it in this data
        self._is_upload = False
        self._raw_octets = 0  # since the last such piece
        self._section_octets = 0
        self._trailer_fields = 0
        self._announced_octets = 0
        self._body_octets = 0
        self._chunks = 0
        self._upgrade_fields: list[tuple[bytes, bytes]] = []
        # Of the connection:
        self._uncounted_octets = 0  # of bodies in memory
        self._dropped_octets = 0

    # --- called by the event loop ---------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._network = client_network(self.client[0] if self.client else "")
        admission = self._limits.register.admit(self, self._network, self.loop.time())
        if admission.close is not None:
            admission.close.give_way()
        if admission.admitted:
            self._set_deadline(self._limits.settings.header_timeout)
            return
        self._log("too many connections")
        self._write_refusal(service_unavailable())
        self._close()

    def data_received(self, data: bytes) -> None:
        if self._receiving is _Receiving.DROPPED:
            self._drop(data)
            return
        self._unset_keepalive_if_required()
        self._now = self.loop.time()
        if self._receiving is _Receiving.NOTHING:
            self._expect_header()
        self._has_piece = False
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self._stop_parsing()
        else:
            if not self._cycles:
                self._limits.register.active(self, self._now)
            self._check_raw_octets(len(data))

    def _parse(self, data: bytes) -> None:
        """Feed the parser. Raise `httptools.HttpParserError`."""
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as ended:
                if not self._upgrade_fields:  # a CONNECT
                    self._end_after_responses()
                    return
                data = self._section_without_upgrade() + data[ended.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
            else:
                return

    def _section_without_upgrade(self) -> bytes:
        version = self.parser.get_http_version().encode("ascii")
        lines = [b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b\r\n" % field for field in self.headers if field[0] != b"upgrade"]
        return b"".join([*lines, b"\r\n"])

    def pause_writing(self) -> None:
        """The client does not read its response: treat the connection as idle."""
        super().pause_writing()
        self._limits.register.release(self, self.loop.time())
        seconds = self._limits.settings.body_timeout
        self._stall_timer = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_stall()
        if self._cycles:
            self._limits.register.protect(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._limits.register.remove(self)
        self._limits.bodies.release(self)
        self._receiving = _Receiving.DROPPED
        self._set_deadline(None)
        if self._timer is not None:
            self._timer.cancel()
        self._end_stall()

    # --- called by the parser -------------------------------------------------------------

    def on_message_begin(self) -> None:
        if len(self._cycles) >= MAX_PIPELINED:
            self._stop(None)
        if self._receiving is not _Receiving.HEADER:
            self._expect_header()
        self._raw_octets = self._section_octets = self._trailer_fields = 0
        self._announced_octets = self._body_octets = self._chunks = 0
        self._is_upload = False
        self._has_piece = True
        super().on_message_begin()
        self.scope["state"][CLOSE] = self.transport.close

    def on_url(self, url: bytes) -> None:
        if len(self.url) + len(url) > MAX_TARGET:
            self._stop(malformed_http("The request target is too long.", 414))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Replaces uvicorn's method: calling it too would cost a microsecond for each field."""
        octets = len(name) + len(value)
        self._section_octets += octets
        fields = len(self.headers) + self._trailer_fields
        if fields >= MAX_FIELDS or octets > MAX_FIELD or self._section_octets > MAX_SECTION:
            self._stop(_header_too_large())
        if self._receiving is _Receiving.BODY:
            self._has_piece = True
            self._trailer_fields += 1  # RFC 9110 §6.5.1: not merged into the header section
            return
        name = name.lower()
        self.headers.append((name, value))
        if name == b"content-length":
            self._announced_octets = int(value[:20]) if value.isdigit() else 0
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        self._is_upload = is_for_objects(self.headers, self.url.partition(b"?")[2])
        if self._announced_octets > MAX_BODY and not self._is_upload:
            self._stop(request_too_large(MAX_BODY))
        if [name for name, _ in self.headers].count(b"host") > 1:  # RFC 9112 §3.2
            self._stop(malformed_http("The request has more than one Host field."))
        if self.parser.should_upgrade() and self._keep_upgrade_fields():
            return
        self.headers += self._upgrade_fields  # they may be signed
        self._upgrade_fields = []
        super().on_headers_complete()
        self._cycles.append(self.cycle)
        self._receiving = _Receiving.BODY
        self._set_deadline(self._limits.settings.body_timeout)

    def _keep_upgrade_fields(self) -> bool:
        """Keep the Upgrade fields for the second reading; return whether there are any."""
        self._upgrade_fields = [field for field in self.headers if field[0] == b"upgrade"]
        if any(b"\n" in value or b"\r" in value for _, value in self.headers):
            self._stop(malformed_http("A header field of the request is folded."))
        return bool(self._upgrade_fields)

    def on_chunk_header(self) -> None:
        """Called by the parser for each chunk of a body that has no Content-Length."""
        self._has_piece = True
        self._chunks += 1
        if self._chunks > (MAX_UPLOAD_CHUNKS if self._is_upload else MAX_CHUNKS):
            self._stop(malformed_http("The request body has too many chunks."))

    def on_body(self, body: bytes) -> None:
        self._has_piece = True
        self._body_octets += len(body)
        limit = MAX_UPLOAD if self._is_upload else MAX_BODY
        if self._body_octets > limit:
            self._stop(request_too_large(limit))
        if not self._is_upload:
            self._uncounted_octets += len(body)
            if self._uncounted_octets > SMALL_BODY:
                self._count_body()
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade_fields:
            return
        super().on_message_complete()
        self._receiving = _Receiving.NOTHING
        self._set_deadline(None)
        self._limits.register.protect(self)
        self._limits.bodies.keep(self)

    # --- called by uvicorn ----------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._cycles.popleft()
        if self._cycles:
            return
        self._uncounted_octets = 0
        self._limits.bodies.release(self)
        self._limits.register.release(self, self.loop.time())
        if self._receiving is _Receiving.BODY:  # the response came before the end of the request
            self._receiving = _Receiving.DROPPED
            self._linger()
        elif self.transport.is_closing():
            self._close()

    # --- ends -----------------------------------------------------------------------------

    def give_way(self) -> None:
        """Close this connection at once, in favour of another."""
        if self._can_refuse():
            self._log("closed in favour of another client")
            self._write_refusal(service_unavailable())
        self._abandon_request()
        self._close()
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _stop(self, error: SesError | None) -> None:
        """Raise out of the parser, which then reports an error."""
        self._stopped_by = _StopError(error)
        raise self._stopped_by

    def _stop_parsing(self) -> None:
        stopped_by, self._stopped_by = self._stopped_by, None
        if stopped_by is None:
            self._refuse(malformed_http("The request is not valid HTTP."))
        elif stopped_by.error is None:
            self._end_after_responses()
        else:
            self._refuse(stopped_by.error)

    def _refuse(self, error: SesError) -> None:
        if not self._can_refuse():
            self._end_after_responses()
            return
        self._log(error.message)
        self._write_refusal(error)
        self._linger()

    def _can_refuse(self) -> bool:
        """Whether no response is begun, and none is pending to an earlier request."""
        if self._receiving is _Receiving.BODY:
            return len(self._cycles) == 1 and not self.cycle.response_started
        return self._receiving is _Receiving.HEADER and not self._cycles

    def _write_refusal(self, error: SesError) -> None:
        response = self._limits.refuse(error)
        lines = [STATUS_LINE[response.status]]
        fields = [*self.server_state.default_headers, *response.headers, (b"connection", b"close")]
        for name, value in fields:
            lines += [name, b": ", value, b"\r\n"]
        self.transport.write(b"".join([*lines, b"\r\n", response.body]))

    def _abandon_request(self) -> None:
        """Cancel the request that is being received: the application does not respond to it."""
        if self._receiving is _Receiving.BODY:
            abandoned = self._cycles.pop()
            abandoned.disconnected = True
            abandoned.message_event.set()
            if self.pipeline and self.pipeline[0][0] is abandoned:
                self.pipeline.popleft()
        self._receiving = _Receiving.DROPPED
        self._limits.bodies.release(self)

    def _linger(self) -> None:
        self._now = self.loop.time()
        self._abandon_request()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._set_deadline(_LINGER_SECONDS)

    def _end_after_responses(self) -> None:
        """Read no further request, and close the connection after the last pending response."""
        if self._receiving is _Receiving.BODY and not self.cycle.response_started:
            self._abandon_request()
        self._receiving = _Receiving.DROPPED
        self._set_deadline(None)
        if self._cycles:
            self._cycles[-1].keep_alive = False
        else:
            self._close()

    def _close(self) -> None:
        """Close, with a deadline for a client that reads no octets."""
        self._now = self.loop.time()
        self._receiving = _Receiving.DROPPED
        self.transport.close()
        self._set_deadline(_LINGER_SECONDS)

    def _drop(self, data: bytes) -> None:
        self._dropped_octets += len(data)
        if self._dropped_octets > _LINGER_OCTETS:
            self.transport.abort()

    # --- time and memory ------------------------------------------------------------------

    def _expect_header(self) -> None:
        self._receiving = _Receiving.HEADER
        self._raw_octets = 0
        self._set_deadline(self._limits.settings.header_timeout)

    def _check_raw_octets(self, octets: int) -> None:
        """Bound what the parser reports only when it is complete, and may keep until then.

        These are a header section, a trailer field, a chunk size with its extensions. Data with
        such a piece in it is not counted: its first part may belong to what is complete.
        """
        if self._receiving not in {_Receiving.HEADER, _Receiving.BODY}:
            return
        self._raw_octets = 0 if self._has_piece else self._raw_octets + octets
        if self._raw_octets > MAX_SECTION:
            self._refuse(_header_too_large())

    def _count_body(self) -> None:
        octets, self._uncounted_octets = self._uncounted_octets, 0
        for connection in self._limits.bodies.take(self, self._network, octets):
            if connection is self:
                self._stop(service_unavailable())
            connection.give_way()

    def _set_deadline(self, seconds: float | None) -> None:
        """Set how long the current state may last. The timer is replaced only by an earlier one."""
        if seconds is None:
            self._deadline = None
            return
        self._deadline = self._now + seconds
        if self._timer is not None:
            if self._timer.when() <= self._deadline:
                return
            self._timer.cancel()
        self._timer = self.loop.call_at(self._deadline, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._check_deadline)
        elif self._receiving is _Receiving.DROPPED:
            self.transport.abort()
        elif self._receiving is _Receiving.NOTHING:
            self._close()
        else:
            self._refuse(request_timeout())

    def _end_stall(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _log(self, reason: str) -> None:
        more = self._limits.log_limiter.check(self._network, self.loop.time())
        if more is not None:
            log.warning("http_refused client=%s reason=%r%s", self._network, reason, more)


def _header_too_large() -> SesError:
    return malformed_http("The header section is too large.", 431)
