"""Access keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.tables import access_keys
from sendback.store.values import AccessKey


@dataclass(frozen=True, slots=True)
class AddKey:
    """Adds a new key; its account must exist."""

    key: AccessKey

    def __call__(self, connection: Connection, /) -> None:
        values = {
            "access_key": self.key.access_key,
            "account_id": self.key.account_id,
            "user_name": self.key.user_name,
            "sealed_secret": self.key.sealed_secret,
            "created_at": to_milliseconds(self.key.created_at),
        }
        connection.execute(insert(access_keys), values)


@dataclass(frozen=True, slots=True)
class DeleteKey:
    """Answers whether there was one."""

    access_key: str

    def __call__(self, connection: Connection, /) -> bool:
        where = access_keys.c.access_key == self.access_key
        return connection.execute(delete(access_keys).where(where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class FindKey:
    """The key, or None."""

    access_key: str

    def __call__(self, connection: Connection, /) -> AccessKey | None:
        where = access_keys.c.access_key == self.access_key
        row = connection.execute(select(access_keys).where(where)).first()
        return _from_row(row) if row else None


@dataclass(frozen=True, slots=True)
class ListKeys:
    """All keys, oldest first."""

    def __call__(self, connection: Connection, /) -> Sequence[AccessKey]:
        query = select(access_keys).order_by(access_keys.c.created_at, access_keys.c.access_key)
        return [_from_row(row) for row in connection.execute(query)]


def _from_row(row: Any) -> AccessKey:
    return AccessKey(
        access_key=row.access_key,
        account_id=row.account_id,
        user_name=row.user_name,
        sealed_secret=row.sealed_secret,
        created_at=from_milliseconds(row.created_at),
    )
