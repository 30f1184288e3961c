"""The checks of this server's DNS, certificate and outbound connections, with advice.

They run on this machine: a firewall or a blocklist elsewhere is not detected.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dns.reversename

from sendback.app import App
from sendback.delivery.outbound import relay_router
from sendback.delivery.routes import Hop, RelayRouter, Route, UnroutableError
from sendback.delivery.sessions import HostFailedError
from sendback.doctor.clients import (
    DnsClient,
    connect_to_relay,
    greet_mail_server,
    locate_mail_server,
    system_source_addresses,
)
from sendback.doctor.findings import Finding, Findings, Severity
from sendback.mail.envelope import Client, ReversePath
from sendback.net.dns_answers import DnsFailedError
from sendback.net.networks import is_public
from sendback.receipt.dmarc import parse_record
from sendback.service.identities.dkim_keys import is_published
from sendback.service.rules.content import Content, MailToCheck
from sendback.smtp_client.connection import PeerError
from sendback.smtp_client.conversation import (
    RefusedError,
)
from sendback.store.identities.dkim_keys import DkimKeyState, FindDkimKeys
from sendback.store.identities.identities import IdentityKind, ListIdentities
from sendback.store.identities.settings import DEFAULTS, FindSettings
from sendback.verdicts.dmarc import organization

_EXPIRES_SOON = timedelta(days=14)
_MAX_DOMAINS = 50


class Doctor:
    """Checks the server of an app's settings."""

    def __init__(self, app: App, *, addresses: Sequence[str], probe: str, outside: bool) -> None:
        """`addresses` are the public ones of this server; empty: found from this machine.

        `probe` is a domain to whose mail server a connection is made, unless `outside` is False.
        """
        self._app = app
        self._hostname = app.settings.hostname.lower()
        self._addresses = tuple(addresses)
        self._probe = probe
        self._outside = outside
        self._dns = DnsClient(app.settings)

    async def examine(self) -> Findings:
        """Return the findings in the order in which they are printed.

        Of domains, the first 50 of the first account are checked.
        """
        if self._app.settings.dns == "off":
            return [Finding("DNS", Severity.PROBLEM, "the setting dns is off", "set dns to system")]
        found = await self._run("host name", self._host_name)
        found += await self._run("addresses", self._reverse_names)
        found += await self._run("SPF of HELO", self._spf)
        found += await self._run("own TLS", self._own_tls)
        for domain in await self._domains():
            found += await self._run(domain, partial(self._domain, domain))
        found += await self._run("DNSSEC", self._dnssec)
        found += await self._run("outbound", self._outbound)
        return found

    async def _run(self, check: str, examine: Callable[[], Awaitable[Findings]]) -> Findings:
        try:
            return await examine()
        except DnsFailedError as error:
            advice = "check the DNS servers in the setting dns"
            return [Finding(check, Severity.PROBLEM, f"the DNS lookup failed: {error}", advice)]

    # --- this server ------------------------------------------------------------------------

    async def _host_name(self) -> Findings:
        name = self._hostname
        if "." not in name:
            advice = "set hostname to a full name such as mx.example.com: servers reject this one"
            return [Finding("host name", Severity.PROBLEM, name, advice)]
        addresses = await self._dns.addresses(name)
        if not addresses:
            advice = f"publish: {name}. A (or AAAA) and this server's address"
            return [Finding("host name", Severity.PROBLEM, f"{name} has no address", advice)]
        return [Finding("host name", Severity.GOOD, f"{name} is {', '.join(addresses)}")]

    async def _own_addresses(self) -> tuple[str, ...]:
        """Return the source addresses of deliveries; behind NAT, those of the host name."""
        local = self._app.settings.source_address or system_source_addresses()
        public = tuple(address for address in local if is_public(address))
        return public or tuple(await self._dns.addresses(self._hostname)) or local

    async def _reverse_names(self) -> Findings:
        self._addresses = self._addresses or await self._own_addresses()
        if not self._addresses:
            advice = "give the public address of this server with --address"
            return [Finding("addresses", Severity.PROBLEM, "no route to the internet", advice)]
        return [await self._reverse_name(address) for address in self._addresses]

    async def _reverse_name(self, address: str) -> Finding:
        """Check the name of the address, and the addresses of that name (RFC 1912 §2.1)."""
        check = f"PTR of {address}"
        name = dns.reversename.from_address(address).to_text()
        answer = await self._dns.query(name, "PTR")
        names = [r.target.to_text(omit_final_dot=True).lower() for r in answer.records]
        wanted = f"ask the owner of the network to publish: {name} PTR {self._hostname}."
        if not names:
            return Finding(check, Severity.PROBLEM, "there is no PTR record", wanted)
        if self._hostname not in names:
            found = f"it is {', '.join(names)}, not {self._hostname}"
            return Finding(check, Severity.PROBLEM, found, wanted)
        if address not in await self._dns.addresses(self._hostname):
            kind = "AAAA" if ":" in address else "A"
            advice = f"publish: {self._hostname}. {kind} {address}"
            found = f"{self._hostname} does not have this address"
            return Finding(check, Severity.PROBLEM, found, advice)
        return Finding(check, Severity.GOOD, self._hostname)

    async def _spf(self) -> Findings:
        """Check SPF of HELO, which is all that SPF can check of a bounce (RFC 7208 §2.4)."""
        return [await asyncio.to_thread(self._spf_of, address) for address in self._addresses]

    def _spf_of(self, address: str) -> Finding:
        client = Client(ip=address, helo=self._hostname)
        now = self._app.clock.now()
        mail = MailToCheck("doctor", client, ReversePath(None), now, Content(b"", b"", 0))
        result = self._dns.spf_result(mail)
        check = f"SPF of HELO from {address}"
        if result == "pass":
            return Finding(check, Severity.GOOD, "pass")
        advice = f'publish: {self._hostname}. TXT "v=spf1 a -all"'
        verdict = Severity.ADVICE if result in {"none", "neutral"} else Severity.PROBLEM
        return Finding(check, verdict, result, advice)

    async def _own_tls(self) -> Findings:
        """Check the certificate that STARTTLS presents."""
        settings = self._app.settings
        file = settings.tls_certificate or settings.data_dir / "tls.pem"
        check = "own certificate"
        if not file.exists():
            return [Finding(check, Severity.ADVICE, "none yet", "start `sendback serve` once")]
        from cryptography import x509  # noqa: PLC0415 - 8 MB

        try:
            certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
        except (OSError, ValueError) as error:
            found = f"{file} has no readable certificate: {error}"
            return [Finding(check, Severity.PROBLEM, found, "set tls_certificate to a PEM file")]
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        if left < _EXPIRES_SOON:
            ends = "expired on" if left < timedelta(0) else "expires on"
            found = f"{file} {ends} {certificate.not_valid_after_utc:%Y-%m-%d}"
            advice = "renew it, and restart the server"
            return [Finding(check, Severity.PROBLEM, found, advice)]
        names = _names_in(certificate)
        if not any(_covers(name, self._hostname) for name in names):
            found = f"{file} is for {', '.join(names)}" if names else f"{file} names no host"
            return [Finding(check, Severity.PROBLEM, found, f"get one for {self._hostname}")]
        if certificate.issuer == certificate.subject:
            advice = "sufficient for most senders; set tls_certificate for those that verify"
            return [Finding(check, Severity.ADVICE, f"{file} is self-signed", advice)]
        return [
            Finding(check, Severity.GOOD, f"{file} for {self._hostname}, {left.days} days left")
        ]

    # --- domains ----------------------------------------------------------------------------

    async def _domains(self) -> list[str]:
        account_id = self._app.settings.account_id
        unit = ListIdentities(account_id, IdentityKind.DOMAIN, "", _MAX_DOMAINS)
        return [identity.identity for identity in await self._app.store.read(unit)]

    async def _domain(self, domain: str) -> Findings:
        return [await self._mx(domain), *await self._dkim(domain), await self._dmarc(domain)]

    async def _mx(self, domain: str) -> Finding:
        answer = await self._dns.query(domain, "MX")
        names = [r.exchange.to_text(omit_final_dot=True).lower() for r in answer.records]
        check = f"MX of {domain}"
        if self._hostname in names:
            return Finding(check, Severity.GOOD, ", ".join(names))
        found = f"it is {', '.join(names)}" if names else "there is no MX record"
        advice = f"to receive here, publish: {domain}. MX 10 {self._hostname}."
        return Finding(check, Severity.ADVICE, found, advice)

    async def _dkim(self, domain: str) -> Findings:
        account_id = self._app.settings.account_id
        keys = await self._app.store.read(FindDkimKeys(account_id, (domain,)))
        active = [key for key in keys if key.state is DkimKeyState.ACTIVE]
        check = f"DKIM of {domain}"
        if not active:
            advice = f"make keys: sendback identities verify {domain} --dkim"
            return [Finding(check, Severity.ADVICE, "mail is not signed", advice)]
        settings = await self._app.store.read(FindSettings(account_id, (domain,)))
        if not settings.get(domain, DEFAULTS).dkim_enabled:
            advice = f"sign: sendback identities verify {domain} --dkim"
            return [Finding(check, Severity.ADVICE, "there are keys, but signing is off", advice)]
        found = []
        for key in active:
            answer = await self._dns.query(key.record_name, "TXT")
            if is_published(answer.texts, key):
                found.append(Finding(check, Severity.GOOD, f"{key.algorithm} key is published"))
            else:
                advice = f"publish what `sendback identities records {domain}` prints"
                missing = f"{key.record_name} does not have this key"
                found.append(Finding(check, Severity.PROBLEM, missing, advice))
        return found

    async def _dmarc(self, domain: str) -> Finding:
        """Check the policy, and whether HELO aligns (RFC 7489 §3.1.2).

        It must if mail has no DKIM signature.
        """
        check = f"DMARC of {domain}"
        for name in dict.fromkeys((domain, organization(domain))):
            answer = await self._dns.query(f"_dmarc.{name}", "TXT")
            texts = [text.decode("ascii", "replace") for text in answer.texts]
            records = [text for text in texts if parse_record(text) is not None]
            if len(records) > 1:  # RFC 7489 §6.6.3: then there is no policy at all
                found = f"{name} has {len(records)} records, so none is used"
                return Finding(check, Severity.PROBLEM, found, "remove all but one")
            if records:
                aligned = organization(self._hostname) == organization(domain)
                helo = "HELO aligns with it" if aligned else "HELO does not align: DKIM must"
                return Finding(check, Severity.GOOD, f"{records[0]}; {helo}")
        advice = f'publish: _dmarc.{domain}. TXT "v=DMARC1; p=none; rua=mailto:you@{domain}"'
        return Finding(check, Severity.ADVICE, "there is no DMARC record", advice)

    # --- the resolver and outbound connections ----------------------------------------------

    async def _dnssec(self) -> Findings:
        if not self._dns.is_trusted:
            advice = "for DANE, run a validating resolver on this machine (unbound), or set dnssec"
            return [Finding("DNSSEC", Severity.ADVICE, "the resolver is not trusted", advice)]
        answer = await self._dns.query(".", "SOA")
        if not answer.is_secure:
            advice = "DANE needs a resolver that validates"
            return [Finding("DNSSEC", Severity.ADVICE, "the resolver does not validate", advice)]
        return [
            Finding("DNSSEC", Severity.GOOD, "the resolver validates; deliveries by MX use DANE")
        ]

    async def _outbound(self) -> Findings:
        if not self._outside:
            found = "not tested; --outside tests it"
            return [Finding("port 25 out", Severity.SKIPPED, found)]
        if self._app.settings.outbound.smarthosts:
            return await self._relays()
        return await self._port_25()

    async def _relays(self) -> Findings:
        """Check that each relay accepts the connection, TLS and the password."""
        router = relay_router(self._app.settings)
        route = await router.route("")
        return [await self._relay(router, route, hop) for hop in route.hops]

    async def _relay(self, router: RelayRouter, route: Route, hop: Hop) -> Finding:
        check = f"relay {hop.host}:{hop.port}"
        try:
            tls = await connect_to_relay(self._app.settings, router, route, hop)
        except (UnroutableError, HostFailedError) as error:
            advice = "check the setting outbound, and what the relay requires"
            return Finding(check, Severity.PROBLEM, str(error), advice)
        password = ", the password is accepted" if hop.login else ""
        return Finding(check, Severity.GOOD, f"{tls or 'without TLS'}{password}")

    async def _port_25(self) -> Findings:
        check = "port 25 out"
        try:
            place = await locate_mail_server(self._app, self._probe)
        except UnroutableError as error:
            return [Finding(check, Severity.PROBLEM, f"{self._probe}: {error}")]
        peer = place.hop.peer(place.addresses[0])
        try:
            capabilities, tls = await greet_mail_server(self._app.settings, place)
        except (PeerError, RefusedError) as error:
            advice = "many networks block port 25: ask yours, or use a relay (outbound smtp://…)"
            return [Finding(check, Severity.PROBLEM, f"{peer}: {error}", advice)]
        answers = Finding(check, Severity.GOOD, f"{peer} answers")
        if "STARTTLS" not in capabilities:
            return [answers, Finding("TLS out", Severity.ADVICE, f"{peer} does not offer STARTTLS")]
        return [answers, Finding("TLS out", Severity.GOOD, f"{peer}: {tls}, certificate verified")]


def _covers(name: str, host: str) -> bool:
    """Whether a name in a certificate is for this host (RFC 9525 §6.3)."""
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])


def _names_in(certificate: Any) -> list[str]:
    from cryptography import x509  # noqa: PLC0415 - 8 MB

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]
