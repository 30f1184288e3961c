"""The DNS queries and the SMTP connections that the checks make."""

import ipaddress
import logging
import socket

from sendback.app import App
from sendback.config.settings import Settings
from sendback.delivery.outbound import async_resolver, mx_router, session_settings, trust_of
from sendback.delivery.routes import Hop, Location, RelayRouter, Route
from sendback.delivery.sessions import open_session
from sendback.mail.printable import printable
from sendback.net.dns_answers import DnsAnswer
from sendback.net.resolver import Resolver
from sendback.service.rules.content import MailToCheck
from sendback.smtp_client.connection import Connection, Timeouts
from sendback.smtp_client.conversation import (
    Capabilities,
    greet,
    hello,
    quit_session,
    request_tls,
)
from sendback.verdicts.look_ups import Budget
from sendback.verdicts.spf import check_spf

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10.0
_SMTP_PORT = 25


class DnsClient:
    """Queries the DNS servers of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._resolver = async_resolver(settings, _TIMEOUT_SECONDS)
        self._spf_resolver = Resolver(settings.dns_servers, cached=False)

    @property
    def is_trusted(self) -> bool:
        """Whether answers can be secure (DNSSEC)."""
        return self._resolver.is_trusted

    async def query(self, name: str, kind: str) -> DnsAnswer:
        """Raise `DnsFailedError`."""
        return await self._resolver.query(name, kind)

    async def addresses(self, name: str) -> list[str]:
        """Return the addresses of the name, IPv4 first. Raise `DnsFailedError`."""
        answers = [await self.query(name, kind) for kind in ("A", "AAAA")]
        return [str(record.address) for answer in answers for record in answer.records]

    def spf_result(self, mail: MailToCheck) -> str:
        """Return the SPF result. It blocks, so call it in a thread."""
        return check_spf(mail, Budget(self._spf_resolver, _TIMEOUT_SECONDS), _log).result


async def connect_to_relay(
    settings: Settings, router: RelayRouter, route: Route, hop: Hop
) -> str | None:
    """Connect to the relay with TLS and AUTH as deliveries do, and return the TLS version.

    Raise `UnroutableError`, `HostFailedError`.
    """
    place = await router.locate(route, hop)
    session = await open_session(
        place, place.addresses, session_settings(settings, _TIMEOUT_SECONDS)
    )
    await session.close()
    return session.tls


async def locate_mail_server(app: App, domain: str) -> Location:
    """Return the first mail server of the domain. Raise `UnroutableError`."""
    router = mx_router(app.settings, app.store, app.clock)
    try:
        route = await router.route(domain)
        return await router.locate(route, route.hops[0])
    finally:
        await router.close()


async def greet_mail_server(settings: Settings, place: Location) -> tuple[Capabilities, str | None]:
    """Return what the server offers, and its TLS version, None without STARTTLS.

    Raise `PeerError` and `RefusedError`; a certificate that is not valid is a `PeerError`.
    """
    hostname = settings.hostname.lower()
    source = next(iter(settings.source_address), None)
    connection = await Connection.open(
        place.addresses[0], place.hop.port, Timeouts(_TIMEOUT_SECONDS), local_address=source
    )
    try:
        capabilities = await connection.run(greet(hostname))
        if "STARTTLS" not in capabilities:
            return capabilities, None
        await connection.run(request_tls())
        await connection.start_tls(trust_of(settings), place.hop.host)
        await connection.run(hello(hostname))
        version = connection.tls.version() if connection.tls else None
        await connection.run(quit_session())
        return capabilities, version
    finally:
        connection.abort()


def system_source_addresses() -> tuple[str, ...]:
    """Return the addresses that the system would connect from. Nothing is sent."""
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, _SMTP_PORT))
                found.append(str(ipaddress.ip_address(probe.getsockname()[0])))
        except (OSError, ValueError):
            continue
    return tuple(found)


def _log(text: str) -> None:
    log.info("%s", printable(text))
