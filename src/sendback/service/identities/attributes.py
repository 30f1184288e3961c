"""Settings of identities: DKIM signing, the MAIL FROM domain, notifications."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sendback.aws.errors import SesError, shown
from sendback.clock import Clock
from sendback.mail.address import (
    Address,
    AddressError,
    parse_address,
    parse_domain,
)
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.identities.dkim_keys import tokens
from sendback.service.identities.policies import own_identities, own_identity, unknown_identity
from sendback.service.identities.verification import Verification
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit
from sendback.store.identities.checks import (
    CheckKind,
    FindChecks,
    IdentityCheck,
)
from sendback.store.identities.dkim_keys import FindDkimKeys
from sendback.store.identities.identities import FindIdentities, VerificationStatus
from sendback.store.identities.settings import (
    DEFAULTS,
    ChangeSettings,
    FindSettings,
    IdentitySettings,
    SetMailFrom,
)

_TOPIC = re.compile(
    r"arn:aws[a-z-]*:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class DkimAttributes:
    """SES API: IdentityDkimAttributes."""

    enabled: bool
    status: VerificationStatus
    tokens: Sequence[str]


@dataclass(frozen=True, slots=True)
class MailFromAttributes:
    """SES API: IdentityMailFromDomainAttributes."""

    domain: str
    status: VerificationStatus
    behavior_on_mx_failure: str


class IdentityAttributes:
    """The attributes of all accounts' identities."""

    def __init__(
        self, store: Store, clock: Clock, verification: Verification, region: str, events: EventBus
    ) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._verification = verification
        self._events = events

    # --- DKIM -------------------------------------------------------------------------------

    async def set_dkim_enabled(self, account_id: str, text: str, *, enabled: bool) -> None:
        """Raise `SesError`: a domain must have keys, the domain of an address be an identity.

        SES API: SetIdentityDkimEnabled.
        """
        name = own_identity(account_id, self._region, text)
        domain = _domain_of(name)
        unknown = SesError(
            "InvalidParameterValue", f"Domain {shown(domain)} is not verified for DKIM signing."
        )
        if name == domain and not await self._store.read(FindDkimKeys(account_id, (domain,))):
            raise unknown
        unit = ChangeSettings(
            account_id, name, lambda old: replace(old, dkim_enabled=enabled), of=domain
        )
        await self._write(unit, unknown)
        self._report(account_id, name, "dkim_enabled" if enabled else "dkim_disabled")

    async def dkim(self, account_id: str, texts: Sequence[str]) -> Mapping[str, DkimAttributes]:
        """Return the attributes of the account's identities; an address has its domain's keys."""
        names = own_identities(account_id, self._region, texts)
        known = await self._known(account_id, names.values())
        domains = tuple({_domain_of(name) for name in known})
        keys = await self._store.read(FindDkimKeys(account_id, domains))
        checks = await self._checks(account_id, domains, CheckKind.DKIM)
        both = tuple({*known, *domains})
        settings = await self._store.read(FindSettings(account_id, both))
        found = {}
        for text, name in names.items():
            domain = _domain_of(name)
            if name in known:
                own = settings.get(name, settings.get(domain, DEFAULTS))
                check = checks.get(domain)
                found[text] = DkimAttributes(
                    enabled=own.dkim_enabled,
                    status=check.status if check else VerificationStatus.NOT_STARTED,
                    tokens=tokens([key for key in keys if key.domain == domain]),
                )
        return found

    # --- MAIL FROM --------------------------------------------------------------------------

    async def set_mail_from(
        self, account_id: str, text: str, domain: str, behavior: str | None
    ) -> None:
        """Set it, or remove it if empty. Raise `SesError`. SES API: SetIdentityMailFromDomain."""
        unknown = unknown_identity(text)
        name = await self._expect(account_id, text, unknown)
        if domain:
            domain = _mail_from_domain(domain, name)
        check = self._verification.first_check(account_id, name, CheckKind.MAIL_FROM)
        await self._write(SetMailFrom(account_id, name, domain, behavior, check), unknown)
        self._report(account_id, name, "mail_from_changed")

    async def mail_from(
        self, account_id: str, texts: Sequence[str]
    ) -> Mapping[str, MailFromAttributes]:
        """Return the attributes of the account's identities."""
        names = own_identities(account_id, self._region, texts)
        known = await self._known(account_id, names.values())
        settings = await self._store.read(FindSettings(account_id, known))
        checks = await self._checks(account_id, known, CheckKind.MAIL_FROM)
        found = {}
        for text, name in names.items():
            if name in known:
                own, check = settings.get(name, DEFAULTS), checks.get(name)
                status = check.status if check else VerificationStatus.PENDING
                found[text] = MailFromAttributes(
                    own.mail_from_domain, status, own.behavior_on_mx_failure
                )
        return found

    # --- notifications ----------------------------------------------------------------------

    async def set_topic(self, account_id: str, text: str, kind: str, topic: str | None) -> None:
        """Set it, or remove it if None. Raise `SesError`. SES API: SetIdentityNotificationTopic."""
        unknown = _unverified(text)
        name = await self._expect(account_id, text, unknown)
        if topic is not None and not _TOPIC.fullmatch(topic):
            raise SesError("InvalidParameterValue", f"SNS topic {shown(topic)} is invalid.")

        def change(settings: IdentitySettings) -> IdentitySettings:
            topics = {key: arn for key, arn in settings.topics.items() if key != kind}
            headers = dict(settings.headers)
            if topic:
                topics[kind] = topic
            else:
                headers.pop(kind, None)
            # Without topics for both, mail is the only notification.
            silent = {"Bounce", "Complaint"} <= topics.keys()
            forwarding = settings.forwarding_enabled or not silent
            return replace(settings, topics=topics, headers=headers, forwarding_enabled=forwarding)

        await self._write(ChangeSettings(account_id, name, change, of=name), unknown)
        self._report(account_id, name, "topic_changed")

    async def set_forwarding(self, account_id: str, text: str, *, enabled: bool) -> None:
        """Raise `SesError`. SES API: SetIdentityFeedbackForwardingEnabled."""
        unknown = _unverified(text)
        name = await self._expect(account_id, text, unknown)

        def change(settings: IdentitySettings) -> IdentitySettings:
            if not enabled and not {"Bounce", "Complaint"} <= settings.topics.keys():
                raise SesError(
                    "InvalidParameterValue",
                    f"Identity <{shown(text)}> must have SNS topics for both bounces and "
                    "complaints before feedback forwarding can be disabled.",
                )
            return replace(settings, forwarding_enabled=enabled)

        await self._write(ChangeSettings(account_id, name, change, of=name), unknown)
        self._report(account_id, name, "forwarding_changed")

    async def set_headers(self, account_id: str, text: str, kind: str, *, enabled: bool) -> None:
        """Raise `SesError`: there must be a topic to enable them.

        SES API: SetIdentityHeadersInNotificationsEnabled.
        """
        unknown = _unverified(text, "It must")
        name = await self._expect(account_id, text, unknown)

        def change(settings: IdentitySettings) -> IdentitySettings:
            if enabled and kind not in settings.topics:
                raise SesError(
                    "InvalidParameterValue",
                    f"Identity <{shown(text)}> has no SNS topic for {kind} notifications.",
                )
            return replace(settings, headers={**settings.headers, kind: enabled})

        await self._write(ChangeSettings(account_id, name, change, of=name), unknown)
        self._report(account_id, name, "headers_changed")

    async def notifications(
        self, account_id: str, texts: Sequence[str]
    ) -> Mapping[str, IdentitySettings]:
        """Return those of the account's identities. SES API: GetIdentityNotificationAttributes."""
        names = own_identities(account_id, self._region, texts)
        known = await self._known(account_id, names.values())
        settings = await self._store.read(FindSettings(account_id, known))
        return {text: settings.get(name, DEFAULTS) for text, name in names.items() if name in known}

    # --- shared -----------------------------------------------------------------------------

    def _report(self, account_id: str, name: str, change: str) -> None:
        now = self._clock.now()
        self._events.publish(reports.identity_event(account_id, name, now, change, None))

    async def _known(self, account_id: str, names: Iterable[str]) -> tuple[str, ...]:
        unit = FindIdentities(account_id, tuple(set(names)))
        return tuple(identity.identity for identity in await self._store.read(unit))

    async def _expect(self, account_id: str, text: str, unknown: SesError) -> str:
        """Return the name of an identity of the account. Raise `unknown` if it has none."""
        name = own_identity(account_id, self._region, text, unknown)
        if name not in await self._known(account_id, (name,)):
            raise unknown
        return name

    async def _write(self, unit: Unit[object], unknown: SesError) -> None:
        """Change settings. Raise `unknown` if the identity was deleted meanwhile."""
        try:
            await self._store.write(unit)
        except NotFoundError:
            raise unknown from None

    async def _checks(
        self, account_id: str, names: Sequence[str], kind: CheckKind
    ) -> Mapping[str, IdentityCheck]:
        found = await self._store.read(FindChecks(account_id, tuple(names)))
        return {check.identity: check for check in found if check.kind is kind}


def _unverified(text: str, must: str = "Must") -> SesError:
    """Return the error for an unknown identity; for one operation it has "It must"."""
    return SesError(
        "InvalidParameterValue",
        f"Identity {shown(text)} is invalid. {must} be a verified email address or domain.",
    )


def _domain_of(name: str) -> str:
    """Return the domain of an identity."""
    if "@" not in name:
        return name
    try:
        address: Address = parse_address(name)
    except AddressError:
        return name
    return address.ascii_domain


def _mail_from_domain(text: str, name: str) -> str:
    try:
        domain = parse_domain(text)
    except AddressError as error:
        raise SesError(
            "InvalidParameterValue", f"Invalid MAIL FROM domain: {shown(str(error))}"
        ) from None
    if not domain.endswith("." + _domain_of(name)):
        raise SesError(
            "InvalidParameterValue",
            f"Provided MAIL-FROM domain <{shown(text)}> is not subdomain of the domain of the "
            f"identity <{shown(name)}>.",
        )
    return domain
