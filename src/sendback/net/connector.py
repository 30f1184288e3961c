"""HTTP requests to URLs that users configure: checked addresses, bounded, no redirects.

The user and password of a URL are sent as HTTP's Basic credentials, and never shown.

The address is checked when the connection is made, not before: a later lookup of the name may
return another address (DNS rebinding). Time and size are limited for the whole exchange, so a
server that sends slowly is disconnected like one that sends nothing.
"""

import asyncio
import base64
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httpcore

from sendback.errors import SendbackError
from sendback.mail.printable import printable
from sendback.net.networks import PrivateAddressError, permitted
from sendback.redaction import shown_url, split_url, without_users

_MAX_RESPONSE = 6 * 2**20  # as Lambda limits the response of a function
_MAX_CONTENT_TYPE = 200  # characters
_MAX_ADDRESSES = 10  # of a host, that are tried

# Returns the addresses of a host, or raises `OSError`.
Lookup = Callable[[str], Awaitable[Sequence[str]]]


class ConnectorError(SendbackError):
    """There is no response. `final`: a retry would not help.

    The text has the URL without user and query, and only visible characters.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(printable(without_users(text), 500))
        self.final = final


class ForbiddenAddressError(ConnectorError):
    """The host has only private addresses, and connections to these are not allowed."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The status, the body and the Content-Type of a response."""

    status: int
    body: bytes
    content_type: str = ""


class Connector:
    """Sends requests over persistent connections."""

    def __init__(
        self,
        *,
        allow_private: bool,
        trust: ssl.SSLContext | None = None,
        lookup: Lookup | None = None,
        max_response: int = _MAX_RESPONSE,
    ) -> None:
        """`allow_private`: loopback, private and link-local addresses are allowed.

        `trust` and `lookup`: certificate authorities and name resolution; None: the system's.
        """
        self._max_response = max_response
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=trust or ssl.create_default_context(),
            max_connections=100,
            keepalive_expiry=30.0,
            network_backend=_GuardedBackend(lookup or _system_lookup, allow_private=allow_private),
        )

    async def post(
        self, url: str, headers: Mapping[str, str], content: bytes, seconds: float
    ) -> HttpResponse:
        """Send a POST request with a timeout in seconds. Raise `ConnectorError`."""
        fields = [(name.encode("ascii"), text.encode("ascii")) for name, text in headers.items()]
        fields.append((b"content-length", str(len(content)).encode()))
        return await self._request("POST", url, fields, content, seconds)

    async def get(self, url: str, seconds: float) -> HttpResponse:
        """Send a GET request with a timeout in seconds. Raise `ConnectorError`."""
        return await self._request("GET", url, [(b"accept", b"*/*")], b"", seconds)

    async def close(self) -> None:
        await self._pool.aclose()

    async def _request(
        self,
        method: str,
        url: str,
        fields: list[tuple[bytes, bytes]],
        content: bytes,
        seconds: float,
    ) -> HttpResponse:
        """Return the response if all of it is received within `seconds`."""
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
    ) -> HttpResponse:
        headers = [(b"host", _host_field(_parsed(url))), *_credentials(url), *fields]
        async with self._pool.stream(method, url, headers=headers, content=content) as response:
            body = bytearray()
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > self._max_response:
                    size = _size(self._max_response)
                    raise ConnectorError(f"{shown_url(url)} answered more than {size}")
        kinds = (value for name, value in response.headers if name.lower() == b"content-type")
        kind = next(kinds, b"")[:_MAX_CONTENT_TYPE].decode("ascii", "replace")
        return HttpResponse(response.status, bytes(body), kind)


def _parsed(url: str) -> httpcore.URL:
    """Raise `ValueError`, for which httpcore raises `TypeError` if the URL is not ASCII."""
    if not url.isascii():
        raise ValueError("a URL is ASCII")
    return httpcore.URL(url)


def _credentials(url: str) -> list[tuple[bytes, bytes]]:
    """Return the Authorization field for a URL with a user and a password (RFC 7617 §2)."""
    parts = split_url(url)
    if parts.username is None:
        return []
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return [(b"authorization", b"Basic " + base64.b64encode(user))]


def _size(octets: int) -> str:
    return f"{octets // 2**20} MiB" if octets >= 2**20 else f"{octets // 2**10} KiB"


def _host_field(url: httpcore.URL) -> bytes:
    return url.host if url.port is None else url.host + f":{url.port}".encode()


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Resolves the host, checks its addresses, and connects to a checked address."""

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


async def _system_lookup(host: str) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
