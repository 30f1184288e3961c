"""The one way out over HTTP for somebody else's wish: guarded, bounded, following no redirect.

The address is judged where the connection is made, not where the name was looked at: a name may
answer differently a moment later (DNS rebinding). Time and size have limits as a whole, so that a
peer that drips octets ends like one that is silent.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpcore

from sendback.mail.networks import is_public
from sendback.service.ports import ActionFailedError

_MAX_ANSWER = 6 * 2**20  # what Lambda allows a function to answer


class ForbiddenAddressError(ActionFailedError):
    """The host has only addresses that may not be connected to."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A status and a body."""

    status: int
    body: bytes


class Connector:
    """Posts to URLs over kept connections."""

    def __init__(self, *, allow_private: bool) -> None:
        """`allow_private`: loopback, private and link-local addresses may be connected to."""
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=100,
            keepalive_expiry=30.0,
            network_backend=_GuardedBackend(allow_private=allow_private),
        )

    async def post(
        self, url: str, headers: Mapping[str, str], content: bytes, seconds: float
    ) -> HttpAnswer:
        """One request, answered as a whole within the time. Raises `ActionFailedError`."""
        fields = [(name.encode("ascii"), text.encode("ascii")) for name, text in headers.items()]
        fields.append((b"content-length", str(len(content)).encode()))
        try:
            async with asyncio.timeout(seconds):
                return await self._post(url, fields, content)
        except TimeoutError:
            raise ActionFailedError(f"{url} did not answer within {seconds:g} s") from None
        except httpcore.UnsupportedProtocol as error:
            raise ActionFailedError(f"{url} is no URL to post to: {error}", final=True) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise ActionFailedError(f"{url}: {error!r}") from None
        except (OSError, ssl.SSLError) as error:
            raise ActionFailedError(f"{url}: {error}") from None

    async def close(self) -> None:
        await self._pool.aclose()

    async def _post(
        self, url: str, fields: list[tuple[bytes, bytes]], content: bytes
    ) -> HttpAnswer:
        headers = [(b"host", _host_field(httpcore.URL(url))), *fields]
        async with self._pool.stream("POST", url, headers=headers, content=content) as answer:
            body = bytearray()
            async for chunk in answer.aiter_stream():
                body += chunk
                if len(body) > _MAX_ANSWER:
                    text = f"{url} answered more than {_MAX_ANSWER // 2**20} MiB"
                    raise ActionFailedError(text)
        return HttpAnswer(answer.status, bytes(body))


def _host_field(url: httpcore.URL) -> bytes:
    return url.host if url.port is None else url.host + f":{url.port}".encode()


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Resolves, judges, and connects to the very address that was judged."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._addresses(host, port)
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except httpcore.NetworkError as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(f"{host}: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        allowed = [address for address in addresses if self._is_allowed(address)]
        if addresses and not allowed:
            raise ForbiddenAddressError(
                f"{host} is {addresses[0]}, an address of a private network, which "
                "the setting private_targets forbids",
                final=True,
            )
        return allowed

    def _is_allowed(self, address: str) -> bool:
        return self._allow_private or is_public(address)
