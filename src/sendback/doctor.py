"""What stands between this server and other people's inboxes: looked at from here, with advice.

Each check answers with findings. What another network sees (a firewall, a blocklist) is only known
as far as it can be tried from this machine.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any

import dns.reversename

from sendback.app import App
from sendback.delivery.outbound import (
    async_resolver,
    mx_router,
    relay_router,
    session_settings,
    trust_of,
)
from sendback.delivery.routes import Hop, Location, RelayRouter, Route, UnroutableError
from sendback.delivery.sessions import HostFailedError, open_session
from sendback.mail.envelope import Client, ReversePath
from sendback.mail.printable import printable
from sendback.net.networks import is_public
from sendback.net.resolver import DnsFailedError, Resolver
from sendback.receipt.dmarc import parse_record
from sendback.service.identities.dkim_keys import is_published
from sendback.service.rules.content import Content, MailToCheck
from sendback.smtp_client.connection import Connection, PeerError, Timeouts
from sendback.smtp_client.conversation import (
    Capabilities,
    RefusedError,
    greet,
    hello,
    quit_session,
    request_tls,
)
from sendback.store.identities.dkim_keys import DkimKeyState, FindDkimKeys
from sendback.store.identities.identities import IdentityKind, ListIdentities
from sendback.store.identities.settings import DEFAULTS, FindSettings
from sendback.verdicts.authentication import organization
from sendback.verdicts.look_ups import Budget
from sendback.verdicts.spf import check_spf

log = logging.getLogger(__name__)

_SECONDS = 10.0
_EXPIRES_SOON = timedelta(days=14)
_MOST_DOMAINS = 50


class Verdict(StrEnum):
    """What a finding means."""

    GOOD = "good"
    ADVICE = "advice"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what to do about it, if anything."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


Findings = list[Finding]


class Doctor:
    """Examines the server of an app's settings."""

    def __init__(self, app: App, *, addresses: Sequence[str], probe: str, outside: bool) -> None:
        """`addresses` are those that others see; empty: what can be told from here.

        `probe` is a domain whose mail server is connected to, unless `outside` is False.
        """
        self._app = app
        self._hostname = app.settings.hostname.lower()
        self._addresses = tuple(addresses)
        self._probe = probe
        self._outside = outside
        self._resolver = async_resolver(app.settings, _SECONDS)
        self._sync = Resolver(app.settings.dns_servers, cached=False)

    async def examine(self) -> Findings:
        """All findings, in the order in which they are to be read."""
        if self._app.settings.dns == "off":
            return [Finding("DNS", Verdict.PROBLEM, "it is off", "set dns to system")]
        found = await self._try("host name", self._host_name)
        found += await self._try("addresses", self._reverse_names)
        found += await self._try("SPF of HELO", self._spf)
        found += await self._try("own TLS", self._own_tls)
        for domain in await self._domains():
            found += await self._try(domain, partial(self._domain, domain))
        found += await self._try("DNSSEC", self._dnssec)
        found += await self._try("way out", self._way_out)
        return found

    async def _try(self, check: str, examine: Callable[[], Awaitable[Findings]]) -> Findings:
        try:
            return await examine()
        except DnsFailedError as error:
            advice = "look at the DNS servers that the setting dns names"
            return [Finding(check, Verdict.PROBLEM, f"DNS did not answer: {error}", advice)]

    # --- this server ------------------------------------------------------------------------

    async def _host_name(self) -> Findings:
        name = self._hostname
        if "." not in name:
            advice = "set hostname to a full name such as mx.example.com: others refuse this one"
            return [Finding("host name", Verdict.PROBLEM, name, advice)]
        addresses = await self._addresses_of(name)
        if not addresses:
            advice = f"publish: {name}. A (or AAAA) and this server's address"
            return [Finding("host name", Verdict.PROBLEM, f"{name} has no address", advice)]
        return [Finding("host name", Verdict.GOOD, f"{name} is {', '.join(addresses)}")]

    async def _own_addresses(self) -> tuple[str, ...]:
        """What deliveries connect from, as others see it: behind NAT, what the name says."""
        local = self._app.settings.source_address or _addresses_to_the_internet()
        public = tuple(address for address in local if is_public(address))
        return public or tuple(await self._addresses_of(self._hostname)) or local

    async def _reverse_names(self) -> Findings:
        self._addresses = self._addresses or await self._own_addresses()
        if not self._addresses:
            advice = "name the address that others see with --address"
            return [Finding("addresses", Verdict.PROBLEM, "no way to the internet", advice)]
        return [await self._reverse_name(address) for address in self._addresses]

    async def _reverse_name(self, address: str) -> Finding:
        """RFC 1912 §2.1: the name of the address, and the address of that name."""
        check = f"PTR of {address}"
        question = dns.reversename.from_address(address).to_text()
        answer = await self._resolver.ask(question, "PTR")
        names = [r.target.to_text(omit_final_dot=True).lower() for r in answer.records]
        wanted = f"have the owner of the network publish: {question} PTR {self._hostname}."
        if not names:
            return Finding(check, Verdict.PROBLEM, "there is none", wanted)
        if self._hostname not in names:
            found = f"it is {', '.join(names)}, not {self._hostname}"
            return Finding(check, Verdict.PROBLEM, found, wanted)
        if address not in await self._addresses_of(self._hostname):
            kind = "AAAA" if ":" in address else "A"
            advice = f"publish: {self._hostname}. {kind} {address}"
            return Finding(check, Verdict.PROBLEM, "its name has other addresses", advice)
        return Finding(check, Verdict.GOOD, self._hostname)

    async def _spf(self) -> Findings:
        """Bounces have no sender but HELO for SPF to look at (RFC 7208 §2.3)."""
        return [await asyncio.to_thread(self._spf_of, address) for address in self._addresses]

    def _spf_of(self, address: str) -> Finding:
        client = Client(ip=address, helo=self._hostname)
        now = self._app.clock.now()
        mail = MailToCheck("doctor", client, ReversePath(None), now, Content(b"", b"", 0))
        result = check_spf(mail, Budget(self._sync, _SECONDS), _log).result
        check = f"SPF of HELO from {address}"
        if result == "pass":
            return Finding(check, Verdict.GOOD, "pass")
        advice = f'publish: {self._hostname}. TXT "v=spf1 a -all"'
        verdict = Verdict.ADVICE if result in {"none", "neutral"} else Verdict.PROBLEM
        return Finding(check, verdict, result, advice)

    async def _own_tls(self) -> Findings:
        """Whether senders that insist on a valid certificate get one here."""
        settings = self._app.settings
        file = settings.tls_certificate or settings.data_dir / "tls.pem"
        check = "own certificate"
        if not file.exists():
            return [Finding(check, Verdict.ADVICE, "none yet", "start `sendback serve` once")]
        from cryptography import x509  # noqa: PLC0415 - 8 MB

        try:
            certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
        except (OSError, ValueError) as error:
            found = f"{file} has no certificate that can be read: {error}"
            return [Finding(check, Verdict.PROBLEM, found, "set tls_certificate to a PEM file")]
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        if left < _EXPIRES_SOON:
            found = f"{file} ends {certificate.not_valid_after_utc:%Y-%m-%d}"
            return [Finding(check, Verdict.PROBLEM, found, "renew it")]
        if self._hostname not in _names_in(certificate):
            found = f"{file} is for {', '.join(_names_in(certificate)) or 'no name'}"
            return [Finding(check, Verdict.PROBLEM, found, f"get one for {self._hostname}")]
        if certificate.issuer == certificate.subject:
            advice = "enough for most senders; set tls_certificate for those that verify"
            return [Finding(check, Verdict.ADVICE, f"{file} is signed by itself", advice)]
        return [Finding(check, Verdict.GOOD, f"{file} for {self._hostname}, {left.days} days left")]

    # --- domains ----------------------------------------------------------------------------

    async def _domains(self) -> list[str]:
        account_id = self._app.settings.account_id
        unit = ListIdentities(account_id, IdentityKind.DOMAIN, "", _MOST_DOMAINS)
        return [identity.identity for identity in await self._app.store.read(unit)]

    async def _domain(self, domain: str) -> Findings:
        return [await self._mx(domain), *await self._dkim(domain), await self._dmarc(domain)]

    async def _mx(self, domain: str) -> Finding:
        answer = await self._resolver.ask(domain, "MX")
        names = [r.exchange.to_text(omit_final_dot=True).lower() for r in answer.records]
        check = f"MX of {domain}"
        if self._hostname in names:
            return Finding(check, Verdict.GOOD, ", ".join(names))
        found = f"it is {', '.join(names)}" if names else "there is none"
        advice = f"to receive here, publish: {domain}. MX 10 {self._hostname}."
        return Finding(check, Verdict.ADVICE, found, advice)

    async def _dkim(self, domain: str) -> Findings:
        account_id = self._app.settings.account_id
        keys = await self._app.store.read(FindDkimKeys(account_id, (domain,)))
        active = [key for key in keys if key.state is DkimKeyState.ACTIVE]
        check = f"DKIM of {domain}"
        if not active:
            advice = f"make keys: sendback identities verify {domain} --dkim"
            return [Finding(check, Verdict.ADVICE, "mail is not signed", advice)]
        settings = await self._app.store.read(FindSettings(account_id, (domain,)))
        if not settings.get(domain, DEFAULTS).dkim_enabled:
            advice = f"sign: sendback identities verify {domain} --dkim"
            return [Finding(check, Verdict.ADVICE, "there are keys, and signing is off", advice)]
        found = []
        for key in active:
            answer = await self._resolver.ask(key.record_name, "TXT")
            if is_published(answer.texts, key):
                found.append(Finding(check, Verdict.GOOD, f"{key.algorithm} key is published"))
            else:
                advice = f"publish what `sendback identities records {domain}` prints"
                missing = f"{key.record_name} has no such key"
                found.append(Finding(check, Verdict.PROBLEM, missing, advice))
        return found

    async def _dmarc(self, domain: str) -> Finding:
        """Without a signature, HELO is what can align with From (RFC 7489 §3.1.2)."""
        check = f"DMARC of {domain}"
        for name in dict.fromkeys((domain, organization(domain))):
            answer = await self._resolver.ask(f"_dmarc.{name}", "TXT")
            texts = [text.decode("ascii", "replace") for text in answer.texts]
            records = [text for text in texts if parse_record(text) is not None]
            if len(records) > 1:  # RFC 7489 §6.6.3: then there is no policy at all
                found = f"{name} has {len(records)} records, so none counts"
                return Finding(check, Verdict.PROBLEM, found, "leave one")
            if records:
                aligned = organization(self._hostname) == organization(domain)
                helo = "HELO aligns with it" if aligned else "HELO does not align: DKIM must"
                return Finding(check, Verdict.GOOD, f"{records[0]}; {helo}")
        advice = f'publish: _dmarc.{domain}. TXT "v=DMARC1; p=none; rua=mailto:you@{domain}"'
        return Finding(check, Verdict.ADVICE, "there is no record", advice)

    # --- the outside ------------------------------------------------------------------------

    async def _dnssec(self) -> Findings:
        if not self._resolver.is_trusted:
            advice = "for DANE, run a validating resolver on this machine (unbound), or set dnssec"
            return [Finding("DNSSEC", Verdict.ADVICE, "the resolver is not trusted", advice)]
        answer = await self._resolver.ask(".", "SOA")
        if not answer.is_secure:
            advice = "DANE needs a resolver that validates"
            return [Finding("DNSSEC", Verdict.ADVICE, "the resolver does not validate", advice)]
        return [Finding("DNSSEC", Verdict.GOOD, "the resolver validates: DANE is used")]

    async def _way_out(self) -> Findings:
        if not self._outside:
            found = "nothing is sent while outbound captures; --outside tries it"
            return [Finding("port 25 out", Verdict.SKIPPED, found)]
        if self._app.settings.outbound.smarthosts:
            return await self._relays()
        return await self._port_25()

    async def _relays(self) -> Findings:
        """Whether each takes our connection, TLS and password."""
        router = relay_router(self._app.settings)
        route = await router.route("")
        return [await self._relay(router, route, hop) for hop in route.hops]

    async def _relay(self, router: RelayRouter, route: Route, hop: Hop) -> Finding:
        check = f"relay {hop.host}:{hop.port}"
        try:
            place = await router.locate(route, hop)
            settings = session_settings(self._app.settings, _SECONDS)
            session = await open_session(place, place.addresses, settings)
        except (UnroutableError, HostFailedError) as error:
            advice = "look at the setting outbound, and at what the relay asks for"
            return Finding(check, Verdict.PROBLEM, str(error), advice)
        await session.close()
        password = ", the password is good" if hop.login else ""
        return Finding(check, Verdict.GOOD, f"{session.tls or 'without TLS'}{password}")

    async def _port_25(self) -> Findings:
        check = "port 25 out"
        settings = self._app.settings
        router = mx_router(settings, self._app.store, self._app.clock)
        try:
            route = await router.route(self._probe)
            place = await router.locate(route, route.hops[0])
        except UnroutableError as error:
            return [Finding(check, Verdict.PROBLEM, f"{self._probe}: {error}")]
        finally:
            await router.close()
        peer = place.hop.peer(place.addresses[0])
        try:
            capabilities, tls = await self._greet(place)
        except (PeerError, RefusedError) as error:
            advice = "many networks block port 25: ask yours, or use a relay (outbound smtp://…)"
            return [Finding(check, Verdict.PROBLEM, f"{peer}: {error}", advice)]
        answers = Finding(check, Verdict.GOOD, f"{peer} answers")
        if "STARTTLS" not in capabilities:
            return [answers, Finding("TLS out", Verdict.ADVICE, f"{peer} does not offer STARTTLS")]
        return [answers, Finding("TLS out", Verdict.GOOD, f"{peer}: {tls}, certificate verified")]

    async def _greet(self, place: Location) -> tuple[Capabilities, str | None]:
        """What the server offers, and its TLS version with a certificate that is verified."""
        source = next(iter(self._app.settings.source_address), None)
        connection = await Connection.open(
            place.addresses[0], place.hop.port, Timeouts(_SECONDS), local_address=source
        )
        try:
            capabilities = await connection.run(greet(self._hostname))
            if "STARTTLS" not in capabilities:
                return capabilities, None
            await connection.run(request_tls())
            await connection.start_tls(trust_of(self._app.settings), place.hop.host)
            await connection.run(hello(self._hostname))
            version = connection.tls.version() if connection.tls else None
            await connection.run(quit_session())
            return capabilities, version
        finally:
            connection.abort()

    async def _addresses_of(self, name: str) -> list[str]:
        answers = [await self._resolver.ask(name, kind) for kind in ("A", "AAAA")]
        return [str(record.address) for answer in answers for record in answer.records]


def _log(text: str) -> None:
    log.info("%s", printable(text))


def _names_in(certificate: Any) -> list[str]:
    from cryptography import x509  # noqa: PLC0415 - 8 MB

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def _addresses_to_the_internet() -> tuple[str, ...]:
    """What the system would connect from; nothing is sent to find out."""
    found = []
    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 25))
                found.append(str(ipaddress.ip_address(probe.getsockname()[0])))
        except (OSError, ValueError):
            continue
    return tuple(found)
