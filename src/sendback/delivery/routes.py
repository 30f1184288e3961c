"""Routes: the hops to a domain in the order in which they are tried, with their TLS policies.

A router returns a route, and later the location of each hop. `RelayRouter` routes all mail through
smarthosts; the router that queries DNS is in `mx`.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from sendback.config.types import Smarthost
from sendback.delivery.tls_policies import TlsPolicy, opportunistic, verified
from sendback.errors import SendbackError

# For how long a smarthost's addresses are cached: the system resolver reports no TTL.
_LOCATED_SECONDS = 5.0


class UnroutableError(SendbackError):
    """There is no route, permanently or temporarily; `str` is the reason."""

    def __init__(self, reason: str, *, is_permanent: bool) -> None:
        super().__init__(reason)
        self.is_permanent = is_permanent


@dataclass(frozen=True, slots=True)
class Login:
    """The credentials for AUTH."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Hop:
    """A server to try."""

    host: str
    port: int
    implicit_tls: bool = False
    login: Login | None = None

    def peer(self, address: str) -> str:
        """Return the name of the peer for attempts: `mx.example.com[192.0.2.1]:25`."""
        bare = address in {self.host, ""}
        return f"{self.host}:{self.port}" if bare else f"{self.host}[{address}]:{self.port}"


@dataclass(frozen=True, slots=True)
class Location:
    """A hop's addresses in the order in which they are tried, and its TLS policy."""

    hop: Hop
    addresses: tuple[str, ...]
    tls: TlsPolicy

    @property
    def key(self) -> str:
        """The key of interchangeable sessions."""
        names = ",".join((self.tls.server_name, *self.tls.names))
        return f"{self.hop.host}:{self.hop.port}/{self.tls.name}/{names}"


@dataclass(frozen=True, slots=True)
class Route:
    """The hops for a domain.

    `is_shared`: they are the same for all domains; `is_cut`: the domain has more that are not here.
    """

    domain: str
    hops: tuple[Hop, ...]
    is_shared: bool = False
    is_cut: bool = False


class Router(Protocol):
    """Finds routes."""

    async def route(self, domain: str) -> Route:
        """Of a canonical domain. Raises `UnroutableError`."""

    async def locate(self, route: Route, hop: Hop) -> Location:
        """Raises `UnroutableError`."""

    async def close(self) -> None:
        """Closes what is kept open."""


class RelayRouter:
    """Routes all mail through the smarthosts, in their order."""

    def __init__(
        self, smarthosts: Sequence[Smarthost], *, verify: bool, trust: ssl.SSLContext
    ) -> None:
        """Credentials are only sent inside TLS with a valid certificate, or to loopback."""
        self._route = Route("", tuple(map(_hop, smarthosts)), is_shared=True)
        self._located: dict[Hop, tuple[float, Location]] = {}
        self._policies = {
            hop: verified(trust) if verify or _has_secrets(smarthost) else opportunistic()
            for hop, smarthost in zip(self._route.hops, smarthosts, strict=True)
        }

    async def route(self, domain: str) -> Route:  # noqa: ARG002 - the same for all
        return self._route

    async def locate(self, route: Route, hop: Hop) -> Location:  # noqa: ARG002
        """Look the name up with the system resolver; addresses keep its order."""
        until, place = self._located.get(hop, (0.0, None))
        if place is None or until < monotonic():
            place = await self._look_up(hop)
            self._located[hop] = (monotonic() + _LOCATED_SECONDS, place)
        return place

    async def _look_up(self, hop: Hop) -> Location:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
        except OSError as error:
            reason = f"4.4.3 {hop.host} has no address: {error.strerror}"
            raise UnroutableError(reason, is_permanent=False) from None
        addresses = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        return Location(hop, addresses, self._policies[hop])

    async def close(self) -> None:
        """Do nothing."""


def _has_secrets(smarthost: Smarthost) -> bool:
    return smarthost.username is not None and not smarthost.is_loopback


def _hop(smarthost: Smarthost) -> Hop:
    login = None
    if smarthost.username is not None and smarthost.password is not None:
        login = Login(smarthost.username, smarthost.password)
    return Hop(smarthost.host, smarthost.port, smarthost.implicit_tls, login)
