"""Identities: request their verification, list and delete them."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sendback.aws.errors import SesError, shown
from sendback.clock import Clock
from sendback.mail.address import (
    Address,
    AddressError,
    identity_name,
    parse_address,
    parse_domain,
)
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.identities.dkim_keys import DkimKeyMaker, tokens
from sendback.service.identities.policies import own_identities
from sendback.service.identities.verification import Verification, new_token
from sendback.service.paging import make_token, read_token
from sendback.store.engine.errors import LimitReachedError
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit
from sendback.store.identities.checks import CheckKind, IdentityCheck
from sendback.store.identities.dkim_keys import (
    DkimKey,
    FindDkimKeys,
    KeysChangedError,
    RotateDkimKeys,
    RotationError,
)
from sendback.store.identities.identities import (
    MAX_IDENTITIES,
    DeleteIdentity,
    FindIdentities,
    Identity,
    IdentityKind,
    ListIdentities,
)
from sendback.store.identities.verification_mails import TooManyVerificationMailsError
from sendback.store.identities.verification_requests import (
    RequestDnsVerification,
    RequestMailVerification,
)
from sendback.store.outbox.rows import OutboxMessage

MAX_PAGE = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IdentityPage:
    """One page, and the token of the next one if there is one."""

    identities: Sequence[Identity]
    next_token: str | None


class Identities:
    """The identities of all accounts."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        verification: Verification,
        dkim: DkimKeyMaker,
        region: str,
        events: EventBus,
    ) -> None:
        self._store = store
        self._clock = clock
        self._verification = verification
        self._dkim = dkim
        self._region = region
        self._events = events

    async def verify_email(self, account_id: str, text: str) -> Identity:
        """Send a verification mail to the address, unless it is verified already.

        Raises `SesError`: InvalidParameterValue for an invalid address, LimitExceeded, Throttling.
        """
        address = self._address(text)
        identity = self._make(account_id, address.key, IdentityKind.EMAIL_ADDRESS)
        unit = RequestMailVerification(
            identity,
            lambda found: self._verification.mail(found, address),
            limits=self._verification.limits,
        )
        asked, _ = await self._write(unit)
        self._report(asked, "requested")
        return asked

    async def verify_by(
        self, account_id: str, text: str, write: Callable[[Identity, Address], OutboxMessage]
    ) -> OutboxMessage:
        """Send the verification mail that `write` composes, also to a verified address.

        Raises `SesError` as `verify_email` does.
        """
        address = self._address(text)
        identity = self._make(account_id, address.key, IdentityKind.EMAIL_ADDRESS)
        unit = RequestMailVerification(
            identity,
            lambda found: write(found, address),
            always=True,
            limits=self._verification.limits,
        )
        asked, mail = await self._write(unit)
        if mail is None:
            raise RuntimeError("a mail that is always sent was not")
        self._report(asked, "requested")
        return mail

    async def verify_domain(self, account_id: str, text: str) -> Identity:
        """Raise `SesError`: InvalidParameterValue for an invalid domain, LimitExceeded."""
        identity = self._make(account_id, _domain(text), IdentityKind.DOMAIN)
        unit = RequestDnsVerification(identity, self._check(identity, CheckKind.DOMAIN))
        asked = await self._write(unit)
        self._report(asked, "requested")
        return asked

    async def verify_dkim(self, account_id: str, text: str) -> Sequence[DkimKey]:
        """Return the domain's DKIM keys; those that it lacks are created. Raise `SesError`."""
        domain = _domain(text)
        identity = self._make(account_id, domain, IdentityKind.DOMAIN)
        known = await self.dkim_keys(account_id, (domain,))
        now = self._clock.now()
        new = await asyncio.to_thread(self._dkim.missing, account_id, domain, known, now)
        selectors = frozenset(key.selector for key in known)
        check = self._check(identity, CheckKind.DKIM)
        asked = await self._write(RequestDnsVerification(identity, check, tuple(new), selectors))
        self._report(asked, "dkim_requested")
        return await self.dkim_keys(account_id, (domain,))

    async def dkim_keys(self, account_id: str, domains: Sequence[str]) -> Sequence[DkimKey]:
        return await self._store.read(FindDkimKeys(account_id, tuple(domains)))

    async def rotate_dkim(self, account_id: str, text: str) -> Sequence[DkimKey]:
        """Make a standby key of each algorithm sign, and create new ones.

        Raise `RotationError`.
        """
        domain = identity_name(text)
        while True:
            with contextlib.suppress(KeysChangedError):  # by a concurrent call
                return await self._rotate_dkim(account_id, domain)

    async def _rotate_dkim(self, account_id: str, domain: str) -> Sequence[DkimKey]:
        """Raise `RotationError`, `KeysChangedError`."""
        keys = await self.dkim_keys(account_id, (domain,))
        if not tokens(keys):
            raise RotationError(f"{domain} has no DKIM keys: call VerifyDomainDkim first")
        now = self._clock.now()
        standby = await asyncio.to_thread(
            self._dkim.missing, account_id, domain, keys, now, rotates=True
        )
        unit = RotateDkimKeys(
            account_id=account_id,
            domain=domain,
            algorithms=self._dkim.algorithms,
            new_standby=tuple(standby),
            now=now,
            must_be_seen=not self._verification.at_once,
            known=keys,
        )
        rotated = await self._store.write(unit)
        self._events.publish(reports.identity_event(account_id, domain, now, "dkim_rotated", None))
        return rotated

    async def delete(self, account_id: str, text: str) -> bool:
        """Delete an identity; return whether there was one. SES returns the same in both cases."""
        name = identity_name(text)
        was_there = await self._store.write(DeleteIdentity(account_id, name))
        if was_there:
            now = self._clock.now()
            self._events.publish(reports.identity_event(account_id, name, now, "deleted", None))
        return was_there

    async def list(
        self, account_id: str, kind: IdentityKind | None, token: str | None, limit: int
    ) -> IdentityPage:
        """Return one page of at most `limit`. Raise `SesError` for a malformed token."""
        after = read_token(token) if token else ""
        found = await self._store.read(ListIdentities(account_id, kind, after, limit + 1))
        page = found[:limit]
        more = len(found) > limit
        return IdentityPage(page, make_token(page[-1].identity) if more else None)

    async def verified_addresses(self, account_id: str) -> Sequence[str]:
        """SES API: ListVerifiedEmailAddresses."""
        kind = IdentityKind.EMAIL_ADDRESS
        unit = ListIdentities(account_id, kind, "", MAX_IDENTITIES, verified_only=True)
        return [identity.identity for identity in await self._store.read(unit)]

    async def find(self, account_id: str, texts: Sequence[str]) -> dict[str, Identity]:
        """Return the account's identities among the names and ARNs, by the text as given."""
        names = own_identities(account_id, self._region, texts)
        found = await self._store.read(FindIdentities(account_id, tuple(set(names.values()))))
        by_name = {identity.identity: identity for identity in found}
        return {text: by_name[name] for text, name in names.items() if name in by_name}

    def request(self, account_id: str, text: str) -> Unit[Identity]:
        """Return the unit of work that requests a verification of either kind. Raise `SesError`.

        For setup files of the operator: the mails are counted, but not limited.
        """
        if "@" in text:
            address = self._address(text)
            identity = self._make(account_id, address.key, IdentityKind.EMAIL_ADDRESS)
            unit = RequestMailVerification(
                identity, lambda found: self._verification.mail(found, address)
            )
            return lambda connection: unit(connection)[0]
        identity = self._make(account_id, _domain(text), IdentityKind.DOMAIN)
        return RequestDnsVerification(identity, self._check(identity, CheckKind.DOMAIN))

    def _report(self, identity: Identity, change: str) -> None:
        self._events.publish(reports.identity_changed(identity, self._clock.now(), change))

    async def _write(self, unit: Unit[T]) -> T:
        try:
            return await self._store.write(unit)
        except LimitReachedError:
            text = f"An account may have {MAX_IDENTITIES} identities."
            raise SesError("LimitExceeded", text) from None
        except TooManyVerificationMailsError as error:
            # As SES reports a used-up sending quota; SDKs retry such a call more slowly.
            raise SesError("Throttling", f"{error}.") from None

    def _check(self, identity: Identity, kind: CheckKind) -> IdentityCheck:
        return self._verification.first_check(identity.account_id, identity.identity, kind)

    def _address(self, text: str) -> Address:
        try:
            address = parse_address(text)
        except AddressError:
            raise invalid_address(text) from None
        if address.needs_smtputf8 and not self._verification.at_once:
            raise invalid_address(text)  # no mail can ask its owner
        return address

    def _make(self, account_id: str, name: str, kind: IdentityKind) -> Identity:
        return Identity(
            account_id=account_id,
            identity=name,
            kind=kind,
            status=self._verification.first_status,
            verification_token=new_token(),
            created_at=self._clock.now(),
        )


def invalid_address(text: str) -> SesError:
    """Return the error of the live service for an invalid address."""
    return SesError("InvalidParameterValue", f"Invalid email address<{shown(text)}>.")


def _domain(text: str) -> str:
    try:
        return parse_domain(text)
    except AddressError:
        raise SesError("InvalidParameterValue", f"Invalid domain name {shown(text)}.") from None
