"""Accounts and the turn-taking of SendBounce."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.tables import accounts


@dataclass(frozen=True, slots=True)
class Account:
    """An account; `name` is for people."""

    account_id: str
    name: str
    created_at: datetime


_TAKE_TURN = (
    update(accounts)
    .where(
        accounts.c.account_id == bindparam("account"),
        accounts.c.last_bounce_at <= bindparam("latest"),
    )
    .values(last_bounce_at=bindparam("now"))
)


@dataclass(frozen=True, slots=True)
class AddAccount:
    """Adds the account unless it exists; answers whether it was added."""

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
        connection.execute(insert(accounts), values)
        return True


@dataclass(frozen=True, slots=True)
class ListAccounts:
    """All accounts, by ID."""

    def __call__(self, connection: Connection, /) -> Sequence[Account]:
        query = select(accounts).order_by(accounts.c.account_id)
        return [
            Account(row.account_id, row.name or "", from_milliseconds(row.created_at))
            for row in connection.execute(query)
        ]


def has_account(connection: Connection, account_id: str) -> bool:
    """Whether there is such an account."""
    known = select(accounts.c.account_id).where(accounts.c.account_id == account_id)
    return connection.execute(known).first() is not None


def take_turn(connection: Connection, account_id: str, now: datetime, interval: timedelta) -> bool:
    """Whether the account's last turn is `interval` ago; if so, this is its turn.

    One atomic UPDATE, so it holds across processes and nodes.
    """
    values = {
        "account": account_id,
        "latest": to_milliseconds(now - interval),
        "now": to_milliseconds(now),
    }
    return connection.execute(_TAKE_TURN, values).rowcount == 1
