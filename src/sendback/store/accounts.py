"""Accounts and the turn-taking of SendBounce."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, insert, select, update

from sendback.clock import to_milliseconds
from sendback.store.tables import accounts

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

    def __call__(self, connection: Connection, /) -> bool:
        known = select(accounts.c.account_id).where(accounts.c.account_id == self.account_id)
        if connection.execute(known).first():
            return False
        values = {
            "account_id": self.account_id,
            "created_at": to_milliseconds(self.now),
            "last_bounce_at": 0,
        }
        connection.execute(insert(accounts), values)
        return True


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
