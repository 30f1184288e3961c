"""Identities: asking for verification, listing, deleting."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sendback.aws.errors import SesError
from sendback.clock import Clock
from sendback.mail.address import AddressError, parse_address, parse_domain
from sendback.store.identities import (
    DeleteIdentity,
    FindIdentities,
    ListIdentities,
    PutIdentity,
)
from sendback.store.store import Store
from sendback.store.values import Identity, IdentityKind, VerificationStatus

MAX_PAGE = 1000


class Verification(Protocol):
    """How an identity becomes verified."""

    def first_status(self) -> VerificationStatus:
        """The status of an identity that has just been asked for."""


class AtOnce:
    """Verified as soon as it is asked for: for a machine whose operator asks for its own."""

    def first_status(self) -> VerificationStatus:
        return VerificationStatus.SUCCESS


@dataclass(frozen=True, slots=True)
class IdentityPage:
    """One page, and the token of the next one if there is one."""

    identities: Sequence[Identity]
    next_token: str | None


class Identities:
    """The identities of all accounts."""

    def __init__(self, store: Store, clock: Clock, verification: Verification) -> None:
        self._store = store
        self._clock = clock
        self._verification = verification

    async def verify_email(self, account_id: str, text: str) -> Identity:
        """Raises `SesError`: InvalidParameterValue for what is no address."""
        try:
            name = parse_address(text).key
        except AddressError as error:
            raise SesError("InvalidParameterValue", f"Invalid email address: {error}") from None
        return await self._put(account_id, name, IdentityKind.EMAIL_ADDRESS)

    async def verify_domain(self, account_id: str, text: str) -> Identity:
        """Raises `SesError`: InvalidParameterValue for what is no domain."""
        try:
            name = parse_domain(text)
        except AddressError as error:
            raise SesError("InvalidParameterValue", f"Invalid domain name: {error}") from None
        return await self._put(account_id, name, IdentityKind.DOMAIN)

    async def delete(self, account_id: str, text: str) -> bool:
        """Whether there was one. SES answers the same either way."""
        return await self._store.write(DeleteIdentity(account_id, identity_name(text)))

    async def list(
        self, account_id: str, kind: IdentityKind | None, token: str | None, limit: int
    ) -> IdentityPage:
        """One page of at most `limit`. Raises `SesError` for a token of nobody's making."""
        after = _read_token(token) if token else ""
        found = await self._store.read(ListIdentities(account_id, kind, after, limit + 1))
        page = found[:limit]
        more = len(found) > limit
        return IdentityPage(page, _make_token(page[-1].identity) if more else None)

    async def find(self, account_id: str, texts: Sequence[str]) -> dict[str, Identity]:
        """Those of the texts that the account has asked to verify, by the text as given."""
        names = {text: identity_name(text) for text in texts}
        found = await self._store.read(FindIdentities(account_id, tuple(set(names.values()))))
        by_name = {identity.identity: identity for identity in found}
        return {text: by_name[name] for text, name in names.items() if name in by_name}

    def made(self, account_id: str, text: str) -> Identity:
        """An identity of either kind, as it would be put. Raises `SesError`."""
        try:
            is_email = "@" in text
            name = parse_address(text).key if is_email else parse_domain(text)
        except AddressError as error:
            raise SesError("InvalidParameterValue", f"Invalid identity: {error}") from None
        kind = IdentityKind.EMAIL_ADDRESS if is_email else IdentityKind.DOMAIN
        return self._make(account_id, name, kind)

    async def _put(self, account_id: str, name: str, kind: IdentityKind) -> Identity:
        return await self._store.write(PutIdentity(self._make(account_id, name, kind)))

    def _make(self, account_id: str, name: str, kind: IdentityKind) -> Identity:
        return Identity(
            account_id=account_id,
            identity=name,
            kind=kind,
            status=self._verification.first_status(),
            verification_token=base64.b64encode(os.urandom(32)).decode("ascii"),
            created_at=self._clock.now(),
        )


def identity_name(text: str) -> str:
    """The spelling under which an identity is kept; the text itself when it is neither kind."""
    try:
        return parse_address(text).key if "@" in text else parse_domain(text)
    except AddressError:
        return text


def _make_token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode("ascii")


def _read_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode("ascii"), b"-_", validate=True).decode()
    except ValueError:
        raise SesError("InvalidParameterValue", "Invalid NextToken") from None
