"""Users of accounts, and the policies attached to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.locking import add_missing, lock_account, put_row
from sendback.store.engine.tables import (
    access_keys,
    console_passwords,
    console_sessions,
    user_policies,
    users,
)


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy document and the name under which it is attached."""

    name: str
    document: str


@dataclass(frozen=True, slots=True)
class User:
    """A user of an account. `policies`, if it has any, restrict it."""

    account_id: str
    name: str
    created_at: datetime
    policies: tuple[NamedPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class AddUser:
    """Add the user unless it exists. Return whether it was added. Its account must exist."""

    account_id: str
    name: str
    now: datetime

    def __call__(self, connection: Connection, /) -> bool:
        if has_user(connection, self.account_id, self.name):
            return False
        values = {
            "account_id": self.account_id,
            "user_name": self.name,
            "created_at": to_milliseconds(self.now),
        }
        return bool(add_missing(connection, users, [values], users.c.user_name))


@dataclass(frozen=True, slots=True)
class ListUsers:
    """Return the account's users with their policies, in order of name."""

    account_id: str

    def __call__(self, connection: Connection, /) -> Sequence[User]:
        query = (
            select(users).where(users.c.account_id == self.account_id).order_by(users.c.user_name)
        )
        return [
            User(
                row.account_id,
                row.user_name,
                from_milliseconds(row.created_at),
                find_user_policies(connection, row.account_id, row.user_name),
            )
            for row in connection.execute(query).all()
        ]


@dataclass(frozen=True, slots=True)
class DeleteUser:
    """Delete the user and all that it has: keys, policies, its password, its sessions.

    Return whether the user existed.
    """

    account_id: str
    name: str

    def __call__(self, connection: Connection, /) -> bool:
        lock_account(connection, self.account_id)  # nothing is added to the user meanwhile
        for table in (access_keys, user_policies, console_passwords, console_sessions):
            where = (table.c.account_id == self.account_id, table.c.user_name == self.name)
            connection.execute(delete(table).where(*where))
        where = (users.c.account_id == self.account_id, users.c.user_name == self.name)
        return connection.execute(delete(users).where(*where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class PutUserPolicy:
    """Attach or replace a policy. Raises `NotFoundError` when the user does not exist."""

    account_id: str
    user_name: str
    policy: NamedPolicy

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.account_id)
        if not has_user(connection, self.account_id, self.user_name):
            raise NotFoundError("user", self.user_name)
        key = {
            "account_id": self.account_id,
            "user_name": self.user_name,
            "policy_name": self.policy.name,
        }
        put_row(connection, user_policies, key, {"document": self.policy.document})


@dataclass(frozen=True, slots=True)
class DeleteUserPolicy:
    """Delete a policy of the user. Return whether it existed."""

    account_id: str
    user_name: str
    policy_name: str

    def __call__(self, connection: Connection, /) -> bool:
        where = (
            user_policies.c.account_id == self.account_id,
            user_policies.c.user_name == self.user_name,
            user_policies.c.policy_name == self.policy_name,
        )
        return connection.execute(delete(user_policies).where(*where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class FindUserPolicies:
    """Return the policies that restrict the user, in order of name."""

    account_id: str
    user_name: str

    def __call__(self, connection: Connection, /) -> Sequence[NamedPolicy]:
        return find_user_policies(connection, self.account_id, self.user_name)


def find_user_policies(
    connection: Connection, account_id: str, user_name: str
) -> tuple[NamedPolicy, ...]:
    """Return the policies that restrict the user, in order of name."""
    query = (
        select(user_policies)
        .where(user_policies.c.account_id == account_id, user_policies.c.user_name == user_name)
        .order_by(user_policies.c.policy_name)
    )
    rows = connection.execute(query)
    return tuple(NamedPolicy(row.policy_name, row.document) for row in rows)


def has_user(connection: Connection, account_id: str, name: str) -> bool:
    """Return whether the account has a user of that name."""
    where = (users.c.account_id == account_id, users.c.user_name == name)
    return connection.execute(select(users.c.user_name).where(*where)).first() is not None
