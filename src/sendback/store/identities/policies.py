"""Sending-authorization policies of identities. Deleting an identity deletes its policies."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from sendback.store.access.users import NamedPolicy, find_user_policies
from sendback.store.engine.errors import LimitReachedError, NotFoundError
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.locking import lock_account
from sendback.store.engine.tables import identity_policies
from sendback.store.identities.identities import FindIdentities, find_verified

_FIND = HotStatement(
    select(identity_policies)
    .where(identity_policies.c.identity.in_(bindparam("names", expanding=True)))
    .order_by(identity_policies.c.policy_name)
)


@dataclass(frozen=True, slots=True)
class PutIdentityPolicy:
    """Attach or replace a policy.

    Raise `NotFoundError` when the account does not have the identity, and `LimitReachedError` when
    there are `limit` other policies.
    """

    account_id: str
    identity: str
    policy: NamedPolicy
    limit: int

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.account_id)
        if not FindIdentities(self.account_id, (self.identity,))(connection):
            raise NotFoundError("identity", self.identity)
        columns = identity_policies.c
        of_identity = (columns.account_id == self.account_id, columns.identity == self.identity)
        where = (*of_identity, columns.policy_name == self.policy.name)
        values = {"document": self.policy.document}
        if connection.execute(update(identity_policies).where(*where).values(values)).rowcount:
            return
        count = connection.execute(select(func.count()).where(*of_identity)).scalar_one()
        if count >= self.limit:
            raise LimitReachedError("policies of an identity", self.limit)
        key = {
            "account_id": self.account_id,
            "identity": self.identity,
            "policy_name": self.policy.name,
        }
        connection.execute(insert(identity_policies), {**key, **values})


@dataclass(frozen=True, slots=True)
class FindIdentityPolicies:
    """Return the identity's policies, in order of name."""

    account_id: str
    identity: str

    def __call__(self, connection: Connection, /) -> Sequence[NamedPolicy]:
        key = (self.account_id, self.identity)
        return find_identity_policies(connection, {key}).get(key, ())


@dataclass(frozen=True, slots=True)
class PoliciesOfUse:
    """The policies that decide whether a user may use an identity.

    `identity` is the (account ID, name) of the verified identity that would be used, or None.
    """

    of_user: tuple[NamedPolicy, ...]
    identity: tuple[str, str] | None
    of_identity: tuple[NamedPolicy, ...]


@dataclass(frozen=True, slots=True)
class FindPoliciesOfUse:
    """Return the policies of the user and of the first verified one of the owner's `names`."""

    account_id: str
    user: str
    owner: str
    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> PoliciesOfUse:
        of_user = find_user_policies(connection, self.account_id, self.user)
        keys = [(self.owner, name) for name in self.names]
        verified = find_verified(connection, keys)
        key = next((key for key in keys if key in verified), None)
        if key is None:
            return PoliciesOfUse(of_user, None, ())
        found = find_identity_policies(connection, {key})
        return PoliciesOfUse(of_user, key, found.get(key, ()))


@dataclass(frozen=True, slots=True)
class DeleteIdentityPolicy:
    """Delete a policy of an identity. Return whether it existed."""

    account_id: str
    identity: str
    policy_name: str

    def __call__(self, connection: Connection, /) -> bool:
        where = (
            identity_policies.c.account_id == self.account_id,
            identity_policies.c.identity == self.identity,
            identity_policies.c.policy_name == self.policy_name,
        )
        return connection.execute(delete(identity_policies).where(*where)).rowcount > 0


def find_identity_policies(
    connection: Connection, identities: Collection[tuple[str, str]]
) -> Mapping[tuple[str, str], tuple[NamedPolicy, ...]]:
    """Return the policies of those of the (account ID, identity) pairs that have any."""
    found: dict[tuple[str, str], tuple[NamedPolicy, ...]] = {}
    names = sorted({name for _, name in identities})
    for row in _FIND.rows(connection, {"names": names}):
        key = (row.account_id, row.identity)
        if key in identities:
            found[key] = (*found.get(key, ()), NamedPolicy(row.policy_name, row.document))
    return found
