"""Accounts, and the rate limit of SendBounce for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.changes import UNWATCHED
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.locking import add_missing
from sendback.store.engine.tables import accounts


@dataclass(frozen=True, slots=True)
class Account:
    """An account. `name` is its display name."""

    account_id: str
    name: str
    created_at: datetime


_ACQUIRE_SLOT = HotStatement(
    update(accounts)
    .where(
        accounts.c.account_id == bindparam("account"),
        accounts.c.last_bounce_at <= bindparam("latest"),
    )
    .values(last_bounce_at=bindparam("now"))
    .execution_options(**UNWATCHED)
)


@dataclass(frozen=True, slots=True)
class AddAccount:
    """Add the account unless it exists. Return whether it was added."""

    account_id: str
    now: datetime
    name: str = ""

    def __call__(self, connection: Connection, /) -> bool:
        if has_account(connection, self.account_id):
            return False
        values = {
            "account_id": self.account_id,
            "created_at": to_milliseconds(self.now),
            "last_bounce_at": 0,
            "name": self.name or None,
        }
        return bool(add_missing(connection, accounts, [values], accounts.c.account_id))


@dataclass(frozen=True, slots=True)
class ListAccounts:
    """Return all accounts, in order of their IDs."""

    def __call__(self, connection: Connection, /) -> Sequence[Account]:
        query = select(accounts).order_by(accounts.c.account_id)
        return [
            Account(row.account_id, row.name or "", from_milliseconds(row.created_at))
            for row in connection.execute(query)
        ]


def has_account(connection: Connection, account_id: str) -> bool:
    """Return whether the account exists."""
    known = select(accounts.c.account_id).where(accounts.c.account_id == account_id)
    return connection.execute(known).first() is not None


def acquire_slot(
    connection: Connection, account_id: str, now: datetime, interval: timedelta
) -> bool:
    """Acquire the account's slot of its rate limit; return False if the limit is reached.

    The limit is one slot in each `interval`. One atomic UPDATE, so it holds across processes and
    nodes.
    """
    values = {
        "account": account_id,
        "latest": to_milliseconds(now - interval),
        "now": to_milliseconds(now),
    }
    return _ACQUIRE_SLOT.run(connection, values) == 1
