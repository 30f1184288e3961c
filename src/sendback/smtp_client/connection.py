"""A connection to an SMTP server: runs conversations and sends content in pieces.

Failures of the server, of the connection and timeouts are `PeerError`s, which have the stage.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from sendback.errors import SendbackError
from sendback.smtp_client.conversation import STAGE_TIMEOUTS, Conversation, Stage
from sendback.smtp_client.replies import GarbageReplyError, ReplyReader, ServerReply

T = TypeVar("T")

MAX_UNSENT_OCTETS = 512 * 1024


class PeerError(SendbackError):
    """The server or the connection failed at a stage; `address` is empty while unknown."""

    def __init__(self, stage: Stage, reason: str, address: str = "") -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
        self.address = address


class TlsError(PeerError):
    """The TLS that is required could not be established."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timeout of each stage: that of RFC 5321 §4.5.3.2, but at most `at_most` seconds."""

    at_most: float

    def seconds(self, stage: Stage) -> float:
        return min(self.at_most, STAGE_TIMEOUTS[stage])


class Connection(asyncio.Protocol):
    """A connection. Create it with `open`, end it with `abort`."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._reader = ReplyReader()
        self._replies: list[ServerReply] = []
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_paused = False
        self._writable: asyncio.Future[None] | None = None
        self._lost: str | None = None
        self._transport: Any = None

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        timeouts: Timeouts,
        *,
        local_address: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Connect to an address or host name, with `tls` by implicit TLS. Raises `PeerError`."""
        loop = asyncio.get_running_loop()
        connection = cls(timeouts)
        options: dict[str, Any] = {"ssl": tls, "server_hostname": server_name} if tls else {}
        if local_address:
            options["local_addr"] = (local_address, 0)
        seconds = timeouts.seconds(Stage.CONNECT)
        try:
            async with asyncio.timeout(seconds):
                await loop.create_connection(lambda: connection, host, port, **options)
        except TimeoutError:
            reason = f"no connection within {seconds:g} s"
            raise PeerError(Stage.CONNECT, reason, host) from None
        except ssl.SSLError as error:
            raise TlsError(Stage.CONNECT, _tls_reason(error), host) from error
        except OSError as error:
            raise PeerError(Stage.CONNECT, _connect_reason(error), host) from error
        return connection

    @property
    def is_open(self) -> bool:
        return self._lost is None

    @property
    def tls(self) -> "ssl.SSLObject | None":
        """The TLS object of the connection, None without TLS."""
        found = self._transport.get_extra_info("ssl_object") if self._transport else None
        return found if isinstance(found, ssl.SSLObject) else None

    @property
    def certificates(self) -> list[bytes]:
        """The unverified certificates that the server sent, DER, its own first."""
        tls: Any = self.tls
        if tls is None:
            return []
        # Public only in Python 3.13.
        chain = tls._sslobj.get_unverified_chain() or []  # noqa: SLF001
        return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]

    async def run(self, conversation: Conversation[T]) -> T:
        """Run a conversation and return its result. Raises `PeerError` and what it raises."""
        try:
            exchange = next(conversation)
            while True:
                replies = await self._exchange(exchange.octets, exchange.replies, exchange.stage)
                exchange = conversation.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Negotiate TLS after the 220 to STARTTLS. Raises `TlsError`."""
        if self._replies or not self._reader.is_empty:
            # RFC 3207 §6: anyone on the network may have inserted it.
            raise TlsError(Stage.STARTTLS, "the server sent plain text after its 220")
        loop = asyncio.get_running_loop()
        seconds = self._timeouts.seconds(Stage.CONNECT)
        try:
            async with asyncio.timeout(seconds):
                self._transport = await loop.start_tls(
                    self._transport, self, context, server_hostname=server_name
                )
        except TimeoutError:
            raise TlsError(Stage.STARTTLS, f"no TLS within {seconds:g} s") from None
        except ssl.SSLError as error:
            raise TlsError(Stage.STARTTLS, _tls_reason(error)) from error
        except OSError as error:
            reason = error.strerror or str(error) or "connection closed"
            raise TlsError(Stage.STARTTLS, reason) from error
        if self._transport is None:
            raise TlsError(Stage.STARTTLS, "connection closed")

    async def send(self, pieces: AsyncIterable[bytes], stage: Stage) -> None:
        """Send octets piece by piece; at most one piece and `MAX_UNSENT_OCTETS` are buffered.

        The caller aborts the connection when this raises: `PeerError`, and what `pieces` raises.
        """
        if self._lost is None:
            self._transport.set_write_buffer_limits(MAX_UNSENT_OCTETS)
        async for piece in pieces:
            if self._lost is None:
                self._transport.write(piece)
                if self._is_paused:
                    await self._drain(stage)
            if self._lost is not None:
                raise PeerError(stage, self._lost)

    def abort(self) -> None:
        """Close at once, without QUIT; unsent octets are discarded."""
        self._lost = self._lost or "closed here"
        if self._transport is not None:
            self._transport.abort()

    async def _exchange(self, octets: bytes, count: int, stage: Stage) -> list[ServerReply]:
        if self._lost is not None:
            raise PeerError(stage, self._lost)
        if octets:
            self._transport.write(octets)
        if len(self._replies) < count:
            await self._wait(count, stage)
        replies, self._replies = self._replies[:count], self._replies[count:]
        return replies

    async def _wait(self, count: int, stage: Stage) -> None:
        seconds = self._timeouts.seconds(stage)
        loop = asyncio.get_running_loop()
        self._wanted = count
        self._waiter = loop.create_future()
        # Not asyncio.timeout, which costs a tenth of a delivery.
        timer = loop.call_later(seconds, self._fail, f"no reply within {seconds:g} s")
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        if len(self._replies) < count:
            raise PeerError(stage, self._lost or "connection closed")

    async def _drain(self, stage: Stage) -> None:
        """Wait until few octets are buffered. The timeout restarts while some are being sent."""
        loop, seconds = asyncio.get_running_loop(), self._timeouts.seconds(stage)
        writable = self._writable = loop.create_future()
        unsent = self._transport.get_write_buffer_size()
        try:
            while not writable.done():
                await asyncio.wait([writable], timeout=seconds)
                before, unsent = unsent, self._transport.get_write_buffer_size()
                if unsent >= before and not writable.done():
                    self._fail("the server does not take the content")
        finally:
            self._writable = None

    def _fail(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._wake_writer()

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- asyncio.Protocol -------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._replies += self._reader.feed(data)
        except GarbageReplyError as error:
            self._fail(str(error))
            return
        if self._waiter is not None and len(self._replies) >= self._wanted:
            self._wake()
        elif self._waiter is None and len(self._replies) > _MAX_UNSOLICITED:
            self._fail("the server sends replies without a command")

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._wake_writer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._lost or (f"connection lost: {exc}" if exc else "connection closed")
        self._wake()


_MAX_UNSOLICITED = 10
# RFC 8305 §5: the Connection Attempt Delay.
_ATTEMPT_DELAY_SECONDS = 0.5


async def first_to_connect(
    addresses: Sequence[str], connect: Callable[[str], Coroutine[Any, Any, Connection]]
) -> tuple[str, Connection]:
    """Start connecting to the addresses in turn, half a second apart; return the first success.

    Raises the last `PeerError` when all fail.
    """
    waiting = deque(addresses)
    running: dict[asyncio.Task[Connection], str] = {}
    failure = PeerError(Stage.CONNECT, "there is no address to connect to")
    try:
        while waiting or running:
            if waiting:
                address = waiting.popleft()
                running[asyncio.create_task(connect(address))] = address
            timeout = _ATTEMPT_DELAY_SECONDS if waiting else None
            done, _ = await asyncio.wait(
                running, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = running.pop(task)
                error = task.exception()
                if error is None:
                    return address, task.result()
                if not isinstance(error, PeerError):
                    raise error
                failure = error
    finally:
        for task in running:
            task.cancel()
            task.add_done_callback(_close_late)
    raise failure


def _close_late(task: asyncio.Task[Connection]) -> None:
    """Close a connection that was established after another address had connected."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


def _connect_reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):  # its numbers are not those of `errno`
        return error.strerror or str(error)
    return os.strerror(error.errno) if error.errno else str(error)


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return f"TLS: {error.reason or error}"
