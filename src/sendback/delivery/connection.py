"""A connection to an SMTP server: the thin shell that carries conversations out.

Everything that goes wrong with the peer, the line or the time is a `PeerError`, which says where.
"""

import asyncio
import os
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from sendback.delivery.conversation import SECONDS, Conversation, Stage
from sendback.delivery.replies import GarbageReplyError, Reply, ReplyReader

T = TypeVar("T")


class PeerError(Exception):
    """The peer did not do its part: where, and what; at which address, once that is known."""

    def __init__(self, stage: Stage, reason: str, address: str = "") -> None:
        super().__init__(f"{stage}: {reason}")
        self.stage = stage
        self.reason = reason
        self.address = address


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
            reason = f"no connection within {seconds:g} s"
            raise PeerError(Stage.CONNECT, reason, host) from None
        except ssl.SSLError as error:
            raise TlsError(Stage.CONNECT, _tls_reason(error), host) from error
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise PeerError(Stage.CONNECT, reason, host) from error
        return connection

    @property
    def is_open(self) -> bool:
        return self._lost is None

    @property
    def tls(self) -> "ssl.SSLObject | None":
        """What TLS says about itself, where there is any."""
        found = self._transport.get_extra_info("ssl_object") if self._transport else None
        return found if isinstance(found, ssl.SSLObject) else None

    @property
    def certificates(self) -> list[bytes]:
        """What the server sent, DER, its own first; not verified."""
        tls: Any = self.tls
        if tls is None:
            return []
        # Public only in Python 3.13.
        chain = tls._sslobj.get_unverified_chain() or []  # noqa: SLF001
        return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]

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
# RFC 8305 §5: how long an address has before the next one is tried beside it.
_HEAD_START_SECONDS = 0.5


async def first_to_connect(
    addresses: Sequence[str], connect: Callable[[str], Coroutine[Any, Any, Connection]]
) -> tuple[str, Connection]:
    """Tries the addresses in order, each with a head start; the first that connects wins.

    Raises `PeerError`, the last one's.
    """
    waiting = deque(addresses)
    running: dict[asyncio.Task[Connection], str] = {}
    failure = PeerError(Stage.CONNECT, "there is no address to connect to")
    try:
        while waiting or running:
            if waiting:
                address = waiting.popleft()
                running[asyncio.create_task(connect(address))] = address
            timeout = _HEAD_START_SECONDS if waiting else None
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
    """It connected when nobody needed it any more."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return f"TLS: {error.reason or error}"
