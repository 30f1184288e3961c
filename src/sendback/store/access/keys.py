"""Access keys, permanent and temporary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from sendback.aws.arn import ROOT_USER
from sendback.clock import (
    from_milliseconds,
    from_optional_milliseconds,
    to_milliseconds,
    to_optional_milliseconds,
)
from sendback.store.access.accounts import AddAccount, has_account
from sendback.store.access.users import NamedPolicy, find_user_policies, has_user
from sendback.store.engine.changes import UNWATCHED
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.locking import lock_account
from sendback.store.engine.sweeping import SweepStep, Swept, delete_some
from sendback.store.engine.tables import access_keys


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key. Its secret is sealed with the installation's secret.

    A key with `expires_at` is temporary; `token_hash` is the hash of its session token.
    """

    access_key: str
    account_id: str
    user_name: str
    sealed_secret: bytes
    created_at: datetime
    disabled_at: datetime | None = None
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    token_hash: str | None = None


_TOUCH = HotStatement(
    update(access_keys)
    .where(access_keys.c.access_key == bindparam("key"))
    .values(last_used_at=bindparam("used_at"))
    .execution_options(**UNWATCHED)
)


@dataclass(frozen=True, slots=True)
class AddKey:
    """Add a new key. Its account must exist."""

    key: AccessKey

    def __call__(self, connection: Connection, /) -> None:
        key = self.key
        values = {
            "access_key": key.access_key,
            "account_id": key.account_id,
            "user_name": key.user_name,
            "sealed_secret": key.sealed_secret,
            "created_at": to_milliseconds(key.created_at),
            "expires_at": to_optional_milliseconds(key.expires_at),
            "token_hash": key.token_hash,
        }
        connection.execute(insert(access_keys), values)


@dataclass(frozen=True, slots=True)
class AddKeyOfUser:
    """Add a key of an existing user. Raises `NotFoundError` when there is no such user.

    With `may_create`, the account of a root user's key is added if there is none.
    """

    key: AccessKey
    may_create: bool

    def __call__(self, connection: Connection, /) -> None:
        key = self.key
        if self.may_create and key.user_name == ROOT_USER:
            AddAccount(key.account_id, key.created_at)(connection)
        lock_account(connection, key.account_id)  # its user is not deleted meanwhile
        if not _has_caller(connection, key):
            raise NotFoundError("user", key.user_name)
        AddKey(key)(connection)


def _has_caller(connection: Connection, key: AccessKey) -> bool:
    if key.user_name == ROOT_USER:
        return has_account(connection, key.account_id)
    return has_user(connection, key.account_id, key.user_name)


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """Delete a key of the account. Return whether it existed."""

    account_id: str
    access_key: str

    def __call__(self, connection: Connection, /) -> bool:
        where = (
            access_keys.c.access_key == self.access_key,
            access_keys.c.account_id == self.account_id,
        )
        return connection.execute(delete(access_keys).where(*where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class SetKeyDisabled:
    """Disable a key of the account, or enable it (None). Return whether it exists."""

    account_id: str
    access_key: str
    disabled_at: datetime | None

    def __call__(self, connection: Connection, /) -> bool:
        where = (
            access_keys.c.access_key == self.access_key,
            access_keys.c.account_id == self.account_id,
        )
        values = {"disabled_at": to_optional_milliseconds(self.disabled_at)}
        return connection.execute(update(access_keys).where(*where).values(values)).rowcount > 0


@dataclass(frozen=True, slots=True)
class FindKey:
    """Return the key and the policies that restrict its user, or None."""

    access_key: str

    def __call__(
        self, connection: Connection, /
    ) -> tuple[AccessKey, tuple[NamedPolicy, ...]] | None:
        where = access_keys.c.access_key == self.access_key
        row = connection.execute(select(access_keys).where(where)).first()
        if row is None:
            return None
        return _from_row(row), find_user_policies(connection, row.account_id, row.user_name)


@dataclass(frozen=True, slots=True)
class RecordUse:
    """Record when keys were last used."""

    used_at: Mapping[str, datetime]

    def __call__(self, connection: Connection, /) -> None:
        rows = [
            {"key": key, "used_at": to_milliseconds(moment)} for key, moment in self.used_at.items()
        ]
        _TOUCH.run_all(connection, rows)


@dataclass(frozen=True, slots=True)
class ListKeys:
    """Return the keys of an account, or of all accounts (None), oldest first."""

    account_id: str | None

    def __call__(self, connection: Connection, /) -> Sequence[AccessKey]:
        query = select(access_keys).order_by(access_keys.c.created_at, access_keys.c.access_key)
        if self.account_id is not None:
            query = query.where(access_keys.c.account_id == self.account_id)
        return [_from_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetExpiredKeys(SweepStep):
    """Delete temporary keys that expired before `before`."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        has_expired = access_keys.c.expires_at < to_milliseconds(self.before)
        is_temporary = access_keys.c.expires_at.is_not(None)
        key = (access_keys.c.access_key,)
        return delete_some(connection, access_keys, key, is_temporary, has_expired)


def _from_row(row: Any) -> AccessKey:
    return AccessKey(
        access_key=row.access_key,
        account_id=row.account_id,
        user_name=row.user_name,
        sealed_secret=row.sealed_secret,
        created_at=from_milliseconds(row.created_at),
        disabled_at=from_optional_milliseconds(row.disabled_at),
        last_used_at=from_optional_milliseconds(row.last_used_at),
        expires_at=from_optional_milliseconds(row.expires_at),
        token_hash=row.token_hash,
    )
