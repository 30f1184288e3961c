"""Identities: which addresses and domains an account may receive for and bounce from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.errors import LimitReachedError
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.locking import lock_account
from sendback.store.engine.tables import (
    dkim_keys,
    identities,
    identity_checks,
    identity_policies,
    identity_settings,
)


class IdentityKind(StrEnum):
    """SES API: IdentityType."""

    EMAIL_ADDRESS = "EmailAddress"
    DOMAIN = "Domain"


class VerificationStatus(StrEnum):
    """SES API: VerificationStatus."""

    PENDING = "Pending"
    SUCCESS = "Success"
    FAILED = "Failed"
    TEMPORARY_FAILURE = "TemporaryFailure"
    NOT_STARTED = "NotStarted"


@dataclass(frozen=True, slots=True)
class Identity:
    """An address or a domain (canonical form) whose verification an account has requested."""

    account_id: str
    identity: str
    kind: IdentityKind
    status: VerificationStatus
    verification_token: str
    created_at: datetime

    @property
    def is_verified(self) -> bool:
        return self.status is VerificationStatus.SUCCESS


_VERIFIED = HotStatement(
    select(identities.c.account_id, identities.c.identity).where(
        identities.c.identity.in_(bindparam("names", expanding=True)),
        identities.c.status == VerificationStatus.SUCCESS.value,
    )
)


MAX_IDENTITIES = 10_000  # SES quotas
_BELONGINGS = (
    (identity_checks, identity_checks.c.identity),
    (identity_settings, identity_settings.c.identity),
    (identity_policies, identity_policies.c.identity),
    (dkim_keys, dkim_keys.c.domain),
)


@dataclass(frozen=True, slots=True)
class PutIdentity:
    """Add an identity and return it; an existing one keeps its date, token and verification.

    Raises `LimitReachedError` when the account has `MAX_IDENTITIES`.
    """

    identity: Identity

    def __call__(self, connection: Connection, /) -> Identity:
        new = self.identity
        lock_account(connection, new.account_id)
        found = find_identities(connection, new.account_id, [new.identity])
        if not found:
            _check_limit(connection, new.account_id)
            connection.execute(insert(identities), _to_row(new))
            return new
        if found[0].is_verified:
            return found[0]
        where = _where(new.account_id, new.identity)
        connection.execute(update(identities).where(*where).values(status=new.status.value))
        return replace(found[0], status=new.status)


@dataclass(frozen=True, slots=True)
class UseVerificationToken:
    """Verify the identity that has this token, and replace the token by `next_token`.

    Returns the status before, or None when the identity does not exist or has another token.
    """

    account_id: str
    identity: str
    token: str
    next_token: str

    def __call__(self, connection: Connection, /) -> VerificationStatus | None:
        lock_account(connection, self.account_id)  # a link is used once
        found = find_identities(connection, self.account_id, [self.identity])
        if not found or found[0].verification_token != self.token:
            return None
        values = {
            "status": VerificationStatus.SUCCESS.value,
            "verification_token": self.next_token,
        }
        where = _where(self.account_id, self.identity)
        connection.execute(update(identities).where(*where).values(values))
        return found[0].status


@dataclass(frozen=True, slots=True)
class DeleteIdentity:
    """Delete an identity with its checks, settings, policies and keys; return if it existed."""

    account_id: str
    identity: str

    def __call__(self, connection: Connection, /) -> bool:
        lock_account(connection, self.account_id)  # nothing is added to the identity meanwhile
        for table, column in _BELONGINGS:
            of_identity = (table.c.account_id == self.account_id, column == self.identity)
            connection.execute(delete(table).where(*of_identity))
        where = _where(self.account_id, self.identity)
        return connection.execute(delete(identities).where(*where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class ListIdentities:
    """Return up to `limit` identities after the name `after`, in order; of one kind or both.

    Those whose names begin with `prefix`.
    """

    account_id: str
    kind: IdentityKind | None
    after: str
    limit: int
    verified_only: bool = False
    prefix: str = ""

    def __call__(self, connection: Connection, /) -> Sequence[Identity]:
        query = (
            select(identities)
            .where(identities.c.account_id == self.account_id, identities.c.identity > self.after)
            .order_by(identities.c.identity)
            .limit(self.limit)
        )
        if self.kind:
            query = query.where(identities.c.kind == self.kind.value)
        if self.prefix:
            query = query.where(identities.c.identity.startswith(self.prefix, autoescape=True))
        if self.verified_only:
            query = query.where(identities.c.status == VerificationStatus.SUCCESS.value)
        return [_from_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class FindIdentities:
    """Return the account's identities of these names, verified or not."""

    account_id: str
    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Sequence[Identity]:
        return find_identities(connection, self.account_id, self.names)


@dataclass(frozen=True, slots=True)
class IsVerified:
    """Return whether the account has verified one of the names."""

    account_id: str
    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> bool:
        return bool(find_verified(connection, {(self.account_id, name) for name in self.names}))


def find_identities(
    connection: Connection, account_id: str, names: Collection[str]
) -> list[Identity]:
    """Return the account's identities of these names, verified or not."""
    query = select(identities).where(
        identities.c.account_id == account_id, identities.c.identity.in_(names)
    )
    return [_from_row(row) for row in connection.execute(query)]


def find_verified(
    connection: Connection, names: Collection[tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """Return those of the (account ID, identity) pairs that are verified."""
    rows = _VERIFIED.rows(connection, {"names": sorted({name for _, name in names})})
    return frozenset((row.account_id, row.identity) for row in rows).intersection(names)


def _where(account_id: str, identity: str) -> tuple[Any, Any]:
    return identities.c.account_id == account_id, identities.c.identity == identity


def _check_limit(connection: Connection, account_id: str) -> None:
    count = select(func.count()).where(identities.c.account_id == account_id)
    if connection.execute(count).scalar_one() >= MAX_IDENTITIES:
        raise LimitReachedError("identities of an account", MAX_IDENTITIES)


def _to_row(identity: Identity) -> dict[str, object]:
    return {
        "account_id": identity.account_id,
        "identity": identity.identity,
        "kind": identity.kind.value,
        "status": identity.status.value,
        "verification_token": identity.verification_token,
        "created_at": to_milliseconds(identity.created_at),
    }


def _from_row(row: Any) -> Identity:
    return Identity(
        account_id=row.account_id,
        identity=row.identity,
        kind=IdentityKind(row.kind),
        status=VerificationStatus(row.status),
        verification_token=row.verification_token,
        created_at=from_milliseconds(row.created_at),
    )
