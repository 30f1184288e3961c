"""Identities: which addresses and domains an account may receive for and bounce from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.tables import identities
from sendback.store.values import Identity, IdentityKind, VerificationStatus

_VERIFIED = select(identities.c.account_id, identities.c.identity).where(
    identities.c.identity.in_(bindparam("names", expanding=True)),
    identities.c.status == VerificationStatus.SUCCESS.value,
)


@dataclass(frozen=True, slots=True)
class PutIdentity:
    """Adds the identity; one that exists keeps its date and token and takes the new status."""

    identity: Identity

    def __call__(self, connection: Connection, /) -> Identity:
        new = self.identity
        found = find_identities(connection, new.account_id, [new.identity])
        if not found:
            connection.execute(insert(identities), _to_row(new))
            return new
        where = (identities.c.account_id == new.account_id, identities.c.identity == new.identity)
        connection.execute(update(identities).where(*where).values(status=new.status.value))
        return find_identities(connection, new.account_id, [new.identity])[0]


@dataclass(frozen=True, slots=True)
class DeleteIdentity:
    """Answers whether there was one."""

    account_id: str
    identity: str

    def __call__(self, connection: Connection, /) -> bool:
        where = (
            identities.c.account_id == self.account_id,
            identities.c.identity == self.identity,
        )
        return connection.execute(delete(identities).where(*where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class ListIdentities:
    """One page in order of name, after `after`; of one kind, or of both."""

    account_id: str
    kind: IdentityKind | None
    after: str
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[Identity]:
        query = (
            select(identities)
            .where(identities.c.account_id == self.account_id, identities.c.identity > self.after)
            .order_by(identities.c.identity)
            .limit(self.limit)
        )
        if self.kind:
            query = query.where(identities.c.kind == self.kind.value)
        return [_from_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class FindIdentities:
    """Those of the names that the account has, verified or not."""

    account_id: str
    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Sequence[Identity]:
        return find_identities(connection, self.account_id, self.names)


@dataclass(frozen=True, slots=True)
class IsVerified:
    """Whether the account has one of the names verified."""

    account_id: str
    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> bool:
        return bool(find_verified(connection, {(self.account_id, name) for name in self.names}))


def find_identities(
    connection: Connection, account_id: str, names: Collection[str]
) -> list[Identity]:
    """For units of other modules that need them in their own transaction."""
    query = select(identities).where(
        identities.c.account_id == account_id, identities.c.identity.in_(names)
    )
    return [_from_row(row) for row in connection.execute(query)]


def find_verified(
    connection: Connection, names: Collection[tuple[str, str]]
) -> frozenset[tuple[str, str]]:
    """Those of the (account ID, identity) pairs that are verified."""
    rows = connection.execute(_VERIFIED, {"names": sorted({name for _, name in names})})
    return frozenset((row.account_id, row.identity) for row in rows).intersection(names)


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
