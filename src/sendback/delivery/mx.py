"""The router by DNS: a domain's mail servers (RFC 5321 §5) and their TLS policies.

A certain result of DNS is permanent: no such domain (5.1.2), a null MX (RFC 7505: 5.1.10), servers
without an address (5.4.4), a loop to this server (5.4.6). A failed lookup is temporary.
DNS may be hostile: addresses inside this network are refused (setting `private_targets`), and of a
long list of servers the first are used. A list that was cut never makes a failure permanent.
"""

import ipaddress
import random
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

from sendback.delivery.dane import TlsaRecord, usable_records
from sendback.delivery.mta_sts import StsPolicies, StsPolicy
from sendback.delivery.routes import Hop, Location, Route, UnroutableError
from sendback.delivery.tls_policies import TlsPolicy, dane, encrypted, opportunistic, verified
from sendback.mail.address import AddressError, parse_domain
from sendback.net.async_resolver import AsyncResolver
from sendback.net.dns_answers import DnsAnswer, DnsFailedError
from sendback.net.networks import PrivateAddressError, permitted

_MAX_SERVERS = 20
_MAX_NAMES = 200  # that are parsed: a DNS message can contain thousands
_MAX_ADDRESSES = 8


@dataclass(frozen=True, slots=True)
class MxSettings:
    """The operator's settings: port, own names, whether private addresses are allowed.

    `tls` has the domains that require `encrypted` or `verified` TLS: by name, `.name` for its
    subdomains, `*` for all others.
    """

    port: int
    own_names: frozenset[str]
    allow_private: bool
    tls: Mapping[str, str]

    def tls_for(self, domain: str) -> str:
        """Return the policy of the most specific entry."""
        labels = domain.split(".")
        below = ("." + ".".join(labels[start:]) for start in range(1, len(labels)))
        names = chain((domain,), below, ("*",))
        return next((self.tls[name] for name in names if name in self.tls), "opportunistic")


@dataclass(frozen=True, slots=True)
class MxRoute(Route):
    """A route with its domain's MTA-STS policy; `is_secure`: DNSSEC authenticates the servers."""

    sts: StsPolicy | None = None
    is_secure: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    """A host's addresses, and its names if DNSSEC authenticates them, the canonical name first."""

    addresses: tuple[str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Tlsa:
    """The usable TLSA records of a name, perhaps none of those that exist."""

    name: str
    records: tuple[TlsaRecord, ...]


class MxRouter:
    """Finds the servers of each domain in DNS."""

    def __init__(
        self,
        resolver: AsyncResolver,
        policies: StsPolicies | None,
        settings: MxSettings,
        trust: ssl.SSLContext,
    ) -> None:
        """`trust` knows the authorities that certificates are verified with."""
        self._resolver = resolver
        self._policies = policies
        self._settings = settings
        self._trust = trust

    async def route(self, domain: str) -> MxRoute:
        if domain.startswith("["):
            return MxRoute(domain, (Hop(_literal(domain), self._settings.port),))
        answer = await self._ask(domain, "MX")
        if not answer.exists:
            raise UnroutableError(f"5.1.2 there is no domain {domain}", is_permanent=True)
        servers, is_cut = self._servers(domain, answer.records)
        hops = tuple(Hop(name, self._settings.port) for name in servers)
        sts = await self._policies.find(domain) if self._policies else None
        return MxRoute(domain, hops, is_cut=is_cut, sts=sts, is_secure=answer.is_secure)

    async def locate(self, route: Route, hop: Hop) -> Location:
        """Raises `UnroutableError`."""
        if not isinstance(route, MxRoute):
            raise TypeError("this router's own routes are located")
        found = await self._addresses(hop.host)
        names = found.names if route.is_secure else ()
        return Location(hop, found.addresses, await self._tls(route, hop, names))

    async def close(self) -> None:
        self._resolver.close()
        if self._policies:
            await self._policies.close()

    # --- servers ----------------------------------------------------------------------------

    def _servers(self, domain: str, records: Sequence[Any]) -> tuple[list[str], bool]:
        """Return the servers in the order in which they are tried, and whether some are left out.

        The order is by preference, random within one (RFC 5321 §5.1). Raises `UnroutableError`.
        """
        if not records:
            return [domain], False  # RFC 5321 §5.1: the domain itself
        pairs = [(r.preference, r.exchange.to_text(omit_final_dot=True).lower()) for r in records]
        if all(name in {"", "."} for _, name in pairs):
            raise UnroutableError(f"5.1.10 {domain} takes no mail (null MX)", is_permanent=True)
        own = min((p for p, name in pairs if name in self._settings.own_names), default=None)
        if own is not None:  # RFC 5321 §5.1: only what is closer to the goal than we are
            pairs = [entry for entry in pairs if entry[0] < own]
        if not pairs:
            reason = f"5.4.6 mail for {domain} would come back here: this is its own MX"
            raise UnroutableError(reason, is_permanent=True)
        random.shuffle(pairs)
        pairs.sort(key=lambda entry: entry[0])
        names = list(dict.fromkeys(name for _, name in pairs))
        found = [name for name in names[:_MAX_NAMES] if _is_host_name(name)]
        is_cut = len(names) > _MAX_NAMES or len(found) > _MAX_SERVERS
        if not found:
            reason = f"5.4.4 the MX of {domain} is no host name: {names[0][:80]}"
            raise UnroutableError(reason, is_permanent=not is_cut)
        return found[:_MAX_SERVERS], is_cut

    async def _addresses(self, host: str) -> _Found:
        """Return A and AAAA records alternately, IPv6 first.

        When the lookup of one kind fails, the other one is used with its DNSSEC state: otherwise an
        attacker who drops a query could disable DANE.
        """
        if _is_address(host):
            return _Found(self._permitted(host, [host]))
        try:
            answers = await self._resolver.address_records(host)
        except DnsFailedError as error:
            raise _dns_failed(error) from error
        kinds = [[record.address for record in answer.records] for answer in answers]
        found = [address for pair in zip_longest(*kinds) for address in pair if address]
        if not found:
            raise UnroutableError(f"5.4.4 {host} has no address", is_permanent=True)
        used = [answer for answer in answers if answer.records]
        names = (*(answer.name for answer in used), host) if all(a.is_secure for a in used) else ()
        return _Found(self._permitted(host, found), tuple(dict.fromkeys(names)))

    def _permitted(self, host: str, addresses: Sequence[str]) -> tuple[str, ...]:
        try:
            found = permitted(host, addresses, allow_private=self._settings.allow_private)
        except PrivateAddressError as error:
            raise UnroutableError(f"5.4.4 {error}", is_permanent=True) from error
        return tuple(found[:_MAX_ADDRESSES])

    # --- TLS --------------------------------------------------------------------------------

    async def _tls(self, route: MxRoute, hop: Hop, names: Sequence[str]) -> TlsPolicy:
        """Return the policy: DANE if there is one (RFC 8461 §2), else the strictest."""
        found = await self._tlsa(hop.port, names)
        if found is not None and found.records:
            return _dane(route, found)
        if route.sts is not None and route.sts.enforces:
            if not route.sts.allows(hop.host):
                reason = f"4.7.5 the MTA-STS policy of {route.domain} does not name {hop.host}"
                raise UnroutableError(reason, is_permanent=False)
            return verified(self._trust, "mta-sts")
        wanted = self._settings.tls_for(route.domain)
        if wanted == "verified":
            return verified(self._trust)
        # RFC 7672 §2.2: records that cannot be used still promise TLS.
        return opportunistic() if found is None and wanted == "opportunistic" else encrypted()

    async def _tlsa(self, port: int, names: Sequence[str]) -> _Tlsa | None:
        """Return the TLSA records of the first name that has any, or None.

        RFC 7672 §2.2: a failed lookup stops delivery, or an attacker could disable DANE.
        """
        for name in names:
            answer = await self._ask(f"_{port}._tcp.{name}", "TLSA")
            if answer.records and answer.is_secure:
                return _Tlsa(name, usable_records(answer.records))
        return None

    async def _ask(self, name: str, kind: str) -> DnsAnswer:
        try:
            return await self._resolver.query(name, kind)
        except DnsFailedError as error:
            raise _dns_failed(error) from error


def _dns_failed(error: DnsFailedError) -> UnroutableError:
    return UnroutableError(f"4.4.3 DNS: {error}", is_permanent=False)


def _dane(route: MxRoute, found: _Tlsa) -> TlsPolicy:
    """Names are compared only for certificates of an authority: else sessions can be shared."""
    checks = any(record.checks_names for record in found.records)
    names = dict.fromkeys((found.name, route.domain)) if checks else ()
    return dane(found.records, found.name, tuple(names))


def _literal(domain: str) -> str:
    """Return the address in `[192.0.2.1]` or `[IPv6:2001:db8::1]` (RFC 5321 §4.1.3)."""
    inner = domain[1:-1]
    return inner[5:] if inner.lower().startswith("ipv6:") else inner


def _is_host_name(text: str) -> bool:
    """Return whether a name has only letters, digits and hyphens; DNS permits any octets."""
    try:
        return bool(text) and parse_domain(text) == text.lower()
    except AddressError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
