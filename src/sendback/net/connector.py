"""The one way out over HTTP to addresses that others choose: guarded, bounded, no redirects.

The address is judged where the connection is made, not where the name was looked at: a name may
answer differently a moment later (DNS rebinding). Time and size have limits as a whole, so that a
peer that drips octets ends like one that is silent.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore

from sendback.mail.printable import printable
from sendback.net.networks import PrivateAddressError, permitted
from sendback.redaction import shown_url, without_users

_MAX_ANSWER = 6 * 2**20  # what Lambda allows a function to answer
_MAX_KIND = 200  # characters of a Content-Type
_MAX_ADDRESSES = 10  # of a host, that are tried


# Answers with a host's addresses. Raises `OSError`.
Lookup = Callable[[str], Awaitable[Sequence[str]]]


class ConnectorError(Exception):
    """There is no answer. `final` when trying again would not help.

    The text names the URL without user and query, and holds nothing that is not visible.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(printable(without_users(text), 500))
        self.final = final


class ForbiddenAddressError(ConnectorError):
    """The host has only addresses that may not be connected to."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A status, a body, and what kind of content it says that it is."""

    status: int
    body: bytes
    content_type: str = ""


class Connector:
    """Asks URLs over kept connections."""

    def __init__(
        self,
        *,
        allow_private: bool,
        trust: ssl.SSLContext | None = None,
        lookup: Lookup | None = None,
        max_answer: int = _MAX_ANSWER,
    ) -> None:
        """`allow_private`: loopback, private and link-local addresses may be connected to.

        `trust` knows the authorities of HTTPS, `lookup` finds addresses: else the system's.
        """
        self._max_answer = max_answer
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trust or ssl.create_default_context(),
            max_connections=100,
            keepalive_expiry=30.0,
            network_backend=_GuardedBackend(lookup or _of_system, allow_private=allow_private),
        )

    async def post(
        self, url: str, headers: Mapping[str, str], content: bytes, seconds: float
    ) -> HttpAnswer:
        """Raises `ConnectorError`."""
        fields = [(name.encode("ascii"), text.encode("ascii")) for name, text in headers.items()]
        fields.append((b"content-length", str(len(content)).encode()))
        return await self._ask("POST", url, fields, content, seconds)

    async def get(self, url: str, seconds: float) -> HttpAnswer:
        """Raises `ConnectorError`."""
        return await self._ask("GET", url, [(b"accept", b"*/*")], b"", seconds)

    async def close(self) -> None:
        await self._pool.aclose()

    async def _ask(
        self,
        method: str,
        url: str,
        fields: list[tuple[bytes, bytes]],
        content: bytes,
        seconds: float,
    ) -> HttpAnswer:
        """One request, answered as a whole within the time."""
        shown = shown_url(url)
        try:
            async with asyncio.timeout(seconds):
                return await self._exchange(method, url, fields, content)
        except TimeoutError:
            raise ConnectorError(f"{shown} did not answer within {seconds:g} s") from None
        except (httpcore.UnsupportedProtocol, ValueError):
            raise ConnectorError(f"{shown} is not a URL of HTTP", final=True) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise ConnectorError(f"{shown}: {error!r}") from None
        except (OSError, ssl.SSLError) as error:
            raise ConnectorError(f"{shown}: {error}") from None

    async def _exchange(
        self, method: str, url: str, fields: list[tuple[bytes, bytes]], content: bytes
    ) -> HttpAnswer:
        headers = [(b"host", _host_field(_parsed(url))), *fields]
        async with self._pool.stream(method, url, headers=headers, content=content) as answer:
            body = bytearray()
            async for chunk in answer.aiter_stream():
                body += chunk
                if len(body) > self._max_answer:
                    size = _size(self._max_answer)
                    raise ConnectorError(f"{shown_url(url)} answered more than {size}")
        kinds = (value for name, value in answer.headers if name.lower() == b"content-type")
        kind = next(kinds, b"")[:_MAX_KIND].decode("ascii", "replace")
        return HttpAnswer(answer.status, bytes(body), kind)


def _parsed(url: str) -> httpcore.URL:
    """Raises `ValueError`; httpcore has a `TypeError` for characters outside of ASCII."""
    if not url.isascii():
        raise ValueError("a URL is ASCII")
    return httpcore.URL(url)


def _size(octets: int) -> str:
    return f"{octets // 2**20} MiB" if octets >= 2**20 else f"{octets // 2**10} KiB"


def _host_field(url: httpcore.URL) -> bytes:
    return url.host if url.port is None else url.host + f":{url.port}".encode()


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Resolves, judges, and connects to the very address that was judged."""

    def __init__(self, lookup: Lookup, *, allow_private: bool) -> None:
        self._lookup = lookup
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
        addresses = (await self._addresses(host))[:_MAX_ADDRESSES]
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

    async def _addresses(self, host: str) -> list[str]:
        try:
            addresses = await self._lookup(host)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label of over 63 octets
            raise httpcore.ConnectError(f"{host}: {error}") from error
        try:
            return permitted(host, addresses, allow_private=self._allow_private)
        except PrivateAddressError as error:
            raise ForbiddenAddressError(str(error), final=True) from error


async def _of_system(host: str) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
