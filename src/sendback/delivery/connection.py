"""A connection to an SMTP server: the thin shell that carries conversations out.

Everything that goes wrong with the peer, the line or the time is a `PeerError`, which says where.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from sendback.delivery.conversation import SECONDS, Conversation, Stage
from sendback.delivery.replies import GarbageReplyError, Reply, ReplyReader

T = TypeVar("T")


class PeerError(Exception):
    """The peer did not do its part: where, and what."""

    def __init__(self, stage: Stage, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason


class TlsError(PeerError):
    """TLS could not be made as it was wanted."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long each stage may take: what RFC 5321 §4.5.3.2 says, or `at_most` seconds."""

    at_most: float

    def seconds(self, stage: Stage) -> float:
        return min(self.at_most, SECONDS[stage])


class Connection(asyncio.Protocol):
    """Open one with `open`; close it with `close` or `abort`."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._reader = ReplyReader()
        self._replies: list[Reply] = []
        self._wanted = 0
        self._waiter: asyncio.Future[None] | None = None
        self._lost: str | None = None
        self._transport: Any = None

    @classmethod
    async def open(
        cls,
        host: str,
        port: int,
        patience: Patience,
        *,
        local_address: str | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Connects to an address; with `tls` in TLS from the first octet. Raises `PeerError`."""
        loop = asyncio.get_running_loop()
        connection = cls(patience)
        options: dict[str, Any] = {"ssl": tls, "server_hostname": server_name} if tls else {}
        if local_address:
            options["local_addr"] = (local_address, 0)
        seconds = patience.seconds(Stage.CONNECT)
        try:
            async with asyncio.timeout(seconds):
                await loop.create_connection(lambda: connection, host, port, **options)
        except TimeoutError:
            raise PeerError(Stage.CONNECT, f"no connection within {seconds:g} s") from None
        except ssl.SSLError as error:
            raise TlsError(Stage.CONNECT, _tls_reason(error)) from error
        except OSError as error:
            raise PeerError(Stage.CONNECT, error.strerror or str(error)) from error
        return connection

    @property
    def is_open(self) -> bool:
        return self._lost is None

    @property
    def tls(self) -> "ssl.SSLObject | None":
        """What TLS says about itself, where there is any."""
        found = self._transport.get_extra_info("ssl_object") if self._transport else None
        return found if isinstance(found, ssl.SSLObject) else None

    async def hold(self, conversation: Conversation[T]) -> T:
        """Carries a conversation out. Raises `PeerError` and what the conversation raises."""
        try:
            exchange = next(conversation)
            while True:
                replies = await self._exchange(exchange.octets, exchange.replies, exchange.stage)
                exchange = conversation.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Behind the 220 to STARTTLS. Raises `TlsError`."""
        if self._replies or not self._reader.is_empty:
            # RFC 3207 §6: what was said in clear before is nobody's word.
            raise TlsError(Stage.STARTTLS, "the server spoke on in clear behind its 220")
        loop = asyncio.get_running_loop()
        seconds = self._patience.seconds(Stage.CONNECT)
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

    def abort(self) -> None:
        """Closes without a word."""
        self._lost = self._lost or "closed here"
        if self._transport is not None:
            self._transport.abort()

    async def _exchange(self, octets: bytes, count: int, stage: Stage) -> list[Reply]:
        if self._lost is not None:
            raise PeerError(stage, self._lost)
        if octets:
            self._transport.write(octets)
        if len(self._replies) < count:
            await self._wait(count, stage)
        replies, self._replies = self._replies[:count], self._replies[count:]
        return replies

    async def _wait(self, count: int, stage: Stage) -> None:
        seconds = self._patience.seconds(stage)
        loop = asyncio.get_running_loop()
        self._wanted = count
        self._waiter = loop.create_future()
        # A timer of our own: asyncio.timeout costs a tenth of a delivery.
        timer = loop.call_later(seconds, self._fail, f"no reply within {seconds:g} s")
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None
        if len(self._replies) < count:
            raise PeerError(stage, self._lost or "connection closed")

    def _fail(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
            self._transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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
        elif self._waiter is None and len(self._replies) > _UNASKED:
            self._fail("the server speaks without being asked")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = self._lost or (f"connection lost: {exc}" if exc else "connection closed")
        self._wake()


_UNASKED = 10


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return f"TLS: {error.reason or error}"
