"""Verification of identities: by mail for an address, by DNS for a domain; or at once.

At once is for a development machine, where outbound mail is captured.
"""

import secrets
from dataclasses import dataclass
from enum import Enum, auto

from sendback.clock import Clock
from sendback.mail.address import Address, parse_mailbox
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.identities.verification_links import ForgedLinkError, Link, Links
from sendback.service.identities.verification_mails import VerificationMails
from sendback.store.engine.store import Store
from sendback.store.identities.checks import CheckKind, IdentityCheck
from sendback.store.identities.identities import (
    FindIdentities,
    Identity,
    UseVerificationToken,
    VerificationStatus,
)
from sendback.store.identities.verification_mails import UNLIMITED, VerificationLimits
from sendback.store.identities.verification_templates import FindTemplate, VerificationTemplate
from sendback.store.outbox.rows import OutboxMessage


class LinkState(Enum):
    """Whether a link is valid."""

    OPEN = auto()
    VERIFIED = auto()  # by this use of the link
    USED = auto()
    EXPIRED = auto()
    FORGED = auto()


@dataclass(frozen=True, slots=True)
class LinkResult:
    """The result of a link: its address, and the URL that the template redirects to."""

    state: LinkState
    address: str = ""
    redirect: str = ""


class Verification:
    """Starts verifications, and completes those by mail."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        links: Links,
        mails: VerificationMails,
        *,
        at_once: bool,
        limits: VerificationLimits = UNLIMITED,
        events: EventBus | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._links = links
        self._mails = mails
        self.at_once = at_once
        self.limits = limits
        self._events = events or EventBus()

    @property
    def first_status(self) -> VerificationStatus:
        """The status of a new identity."""
        return VerificationStatus.SUCCESS if self.at_once else VerificationStatus.PENDING

    def first_check(self, account_id: str, identity: str, kind: CheckKind) -> IdentityCheck:
        """Return the first check of an identity: due now, or successful for ever."""
        now = self._clock.now()
        due_at = None if self.at_once else now
        return IdentityCheck(account_id, identity, kind, self.first_status, now, due_at)

    def mail(self, identity: Identity, to: Address) -> OutboxMessage:
        """Return the verification mail to `to`."""
        link = self._links.make(identity.account_id, identity.identity, identity.verification_token)
        return self._mails.standard(identity.account_id, to, link, self._clock.now())

    def custom_mail(
        self, identity: Identity, to: Address, template: VerificationTemplate
    ) -> OutboxMessage:
        """Return the verification mail to `to` by a template."""
        link = self._links.make(
            identity.account_id, identity.identity, identity.verification_token, template.name
        )
        sender = parse_mailbox(template.from_address)
        return self._mails.custom(template, sender, to, link, self._clock.now())

    async def look_at(self, text: str) -> LinkResult:
        """Return whether the link is valid, without a change. Raises `StoreUnavailableError`."""
        try:
            link = self._links.read(text)
        except ForgedLinkError:
            return LinkResult(LinkState.FORGED)
        unit = FindIdentities(link.account_id, (link.address,))
        found = await self._store.read(unit)
        waits = [i for i in found if i.verification_token == link.token]
        if not waits:
            return await self._answer(LinkState.USED, link)
        if self._links.has_expired(link):
            return await self._answer(LinkState.EXPIRED, link)
        return LinkResult(LinkState.OPEN, link.address)

    async def use(self, text: str) -> LinkResult:
        """Verify the address if the link is valid. Raises `StoreUnavailableError`."""
        answer = await self.look_at(text)
        if answer.state is not LinkState.OPEN:
            return answer
        link = self._links.read(text)
        unit = UseVerificationToken(link.account_id, link.address, link.token, new_token())
        used = await self._store.write(unit)
        if used is not None:
            status, now = VerificationStatus.SUCCESS.value, self._clock.now()
            self._events.publish(
                reports.identity_event(link.account_id, link.address, now, "verified", status)
            )
        return await self._answer(LinkState.USED if used is None else LinkState.VERIFIED, link)

    async def _answer(self, state: LinkState, link: Link) -> LinkResult:
        template = None
        if link.template:
            template = await self._store.read(FindTemplate(link.account_id, link.template))
        redirect = ""
        if template is not None:
            verified = state is LinkState.VERIFIED
            redirect = template.success_url if verified else template.failure_url
        return LinkResult(state, link.address, redirect)


def new_token() -> str:
    """Return 44 characters with 256 random bits, in the form of SES's tokens."""
    return secrets.token_urlsafe(32) + "="
