"""Where a domain's mail goes: hops in the order in which they are tried, and how safe they must be.

A router answers with a route. Here is the one that sends everything
through smarthosts.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sendback.setting_texts import Smarthost


@dataclass(frozen=True, slots=True)
class TlsPolicy:
    """How a hop is protected: `name` for people; `required`: no delivery in clear."""

    name: str
    context: ssl.SSLContext
    required: bool


@dataclass(frozen=True, slots=True)
class Login:
    """What AUTH is given."""

    username: str
    password: str


@dataclass(frozen=True, slots=True)
class Hop:
    """A server to try; its name is looked up on connecting."""

    host: str
    port: int
    tls: TlsPolicy
    implicit_tls: bool = False
    login: Login | None = None

    def peer(self, address: str) -> str:
        """How an attempt names it: `mx.example.com[192.0.2.1]:25`."""
        bare = address in {self.host, ""}
        return f"{self.host}:{self.port}" if bare else f"{self.host}[{address}]:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """Hops, the first ones first. Deliveries of one `key` share connections and their limit."""

    key: str
    hops: tuple[Hop, ...]


class Router(Protocol):
    """Finds routes."""

    async def route(self, domain: str) -> Route:
        """Of a canonical domain."""


def client_context(*, verify: bool) -> ssl.SSLContext:
    """For TLS that must be valid, or opportunistic TLS (RFC 7435), which any certificate does."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class RelayRouter:
    """Everything goes through the smarthosts, in their order."""

    def __init__(self, smarthosts: Sequence[Smarthost], *, verify: bool) -> None:
        """Credentials are only sent inside TLS with a valid certificate, or to loopback."""
        self._route = Route("relay", tuple(_hop(host, verify=verify) for host in smarthosts))

    async def route(self, domain: str) -> Route:  # noqa: ARG002 - the same for all
        return self._route


def _hop(smarthost: Smarthost, *, verify: bool) -> Hop:
    must_verify = verify or (smarthost.username is not None and not smarthost.is_loopback)
    policy = TlsPolicy(
        name="verified" if must_verify else "opportunistic",
        context=client_context(verify=must_verify),
        required=must_verify,
    )
    login = None
    if smarthost.username is not None and smarthost.password is not None:
        login = Login(smarthost.username, smarthost.password)
    return Hop(
        smarthost.host, smarthost.port, policy, implicit_tls=smarthost.implicit_tls, login=login
    )
