"""Durable queues: rows that workers claim for a time.

Theory of operation. A row waits while its state is `queued`; a worker may lease it once `due_at`
has come. The lease sets `due_at` to its own end and increments `lease_token`, in one atomic UPDATE.
A worker updates a row only with the token of its lease: a worker that resumes after another one has
leased the row has a stale token, and its update changes nothing. A running worker renews its
leases; the rows of a killed worker become due when their leases end.

`tries` is the number of leases since a result was last recorded. Each lease increments it, a
recorded result sets it to 0, and returning the row untried decrements it. So it grows for a row
whose worker died or failed:

| `tries` before the lease | what happens |
| --- | --- |
| 0, 1 | it is leased together with other rows |
| 2 to 4 | it is a suspect: each process works on one suspect at a time |
| 5 | it is set aside: its state is `held`, with the reason, until an operator retries it |

One at a time, because the death of a process increments `tries` of all rows in progress in it: a
harmless row is cleared by its own result, and only the row that causes the deaths fails again.
The delay until the next lease grows with the square of `tries`.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    Table,
    bindparam,
    case,
    literal_column,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from sendback.clock import to_milliseconds
from sendback.store.engine.column_types import without_nul
from sendback.store.engine.hot import HotStatement

log = logging.getLogger(__name__)

QUEUED = "queued"
HELD = "held"
SUSPECT_TRIES = 2  # as in the conditions of the indexes (tables.py)
# Two leases together with other rows, any of which may be the cause, and three alone: so three
# power failures or bad deployments in a row set nothing aside.
MOST_TRIES = 5
DIED = f"its worker ended without a result {MOST_TRIES} times"
_SET_ASIDE_AT_ONCE = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Term:
    """The owner and the time span of a lease."""

    owner: str
    now: datetime
    until: datetime

    @property
    def step(self) -> timedelta:
        """The delay after the first failure: a third of the lease, 10 s of the usual 30 s."""
        return (self.until - self.now) / 3


def penalty(step: timedelta, failures: int) -> timedelta:
    """Return the extra delay of a row after so many leases without a result."""
    return step * failures**2


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease of a row. `tries` is the number of leases since a result, this one included."""

    key: str
    token: int
    tries: int = 1


class _IsOneOf(FunctionElement[bool]):
    """The condition that a column has one of the values of a query, which is run once.

    PostgreSQL may run the query of `IN` again for each row, and each run would lock other rows.
    """

    inherit_cache = True


@compiles(_IsOneOf)
def _compile_in(element: Any, compiler: Any, **options: Any) -> str:
    column, query = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} IN {query}"


@compiles(_IsOneOf, "postgresql")
def _compile_any(element: Any, compiler: Any, **options: Any) -> str:
    column, query = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY (ARRAY {query})"


class LeaseQueue:
    """A table with `state`, `due_at`, `lease_owner`, `lease_token`, `tries`, and two more columns.

    `key` identifies a row; `reason` is why a row was requeued or set aside.
    """

    def __init__(self, table: Table, key: Column[str], reason: Column[str | None]) -> None:
        columns = table.c
        self.table = table
        self.key = key
        # Literals, not parameters: SQLite would not use the partial indexes otherwise.
        self.is_queued = columns.state == literal_column(f"'{QUEUED}'")
        self.is_suspect = self.is_queued & (columns.tries >= literal_column(str(SUSPECT_TRIES)))
        self.is_trusted = self.is_queued & (columns.tries < literal_column(str(SUSPECT_TRIES)))
        self._reason = reason.name
        is_due = columns.due_at <= bindparam("now")
        grown: Any = bindparam("step") * columns.tries * columns.tries
        self._taken = {
            "due_at": bindparam("until") + grown,
            "lease_owner": bindparam("owner"),
            "lease_token": columns.lease_token + 1,
            "tries": columns.tries + 1,
        }
        less = case((columns.tries > 0, columns.tries - 1), else_=0)
        self._given_back: dict[str, Any] = {
            "due_at": bindparam("then"),
            "lease_owner": None,
            "tries": less,
        }
        self._take_some = self.taking(
            select(key)
            .where(self.is_trusted, is_due)
            .order_by(columns.due_at)
            .limit(bindparam("most"))
        )
        self._take_one = self.taking(select(key).where(key == bindparam("one")))
        self._suspects = HotStatement(
            select(key)
            .where(self.is_suspect, is_due, columns.tries < MOST_TRIES)
            .order_by(columns.due_at)
            .limit(1)
        )
        self._dead = HotStatement(
            select(key)
            .where(self.is_suspect, is_due, columns.tries >= MOST_TRIES)
            .limit(_SET_ASIDE_AT_ONCE)
        )
        self._any_suspect = HotStatement(select(key).where(self.is_suspect, is_due).limit(1))
        held = (columns.lease_owner == bindparam("owner"), self.is_queued)
        keys = key.in_(bindparam("keys", expanding=True))
        # `tries` already includes this lease.
        before = case((columns.tries > 1, columns.tries - 1), else_=0)
        self._renew = (
            update(table)
            .where(*held, keys)
            .values(due_at=bindparam("until") + bindparam("step") * before * before)
        )
        self._release = update(table).where(*held, keys).values(self._given_back)
        mine = (key == bindparam("one"), columns.lease_token == bindparam("token"), self.is_queued)
        self._give_back = update(table).where(*mine).values(self._given_back)
        self._fail = (
            update(table)
            .where(*mine)
            .values(
                {
                    "state": case((columns.tries >= bindparam("limit"), HELD), else_=columns.state),
                    "due_at": bindparam("then") + grown,
                    "lease_owner": None,
                    self._reason: bindparam("why"),
                }
            )
        )
        self._hold = (
            update(table)
            .where(key == bindparam("one"), self.is_queued)
            .values({"state": HELD, "lease_owner": None, self._reason: bindparam("why")})
        )

    def taking(self, chosen: Any) -> HotStatement:
        """Return the UPDATE that leases the chosen rows and returns them; see `claim_values`."""
        keys = chosen.with_for_update(skip_locked=True).scalar_subquery()
        return HotStatement(
            update(self.table)
            .where(_IsOneOf(self.key, keys))
            .values(self._taken)
            .returning(self.table)
        )

    @staticmethod
    def claim_values(term: Term) -> dict[str, object]:
        """Return the parameters of the statement that `taking` returns."""
        return {
            "now": to_milliseconds(term.now),
            "until": to_milliseconds(term.until),
            "step": _milliseconds(term.step),
            "owner": term.owner,
        }

    def take(self, connection: Connection, term: Term, limit: int) -> Sequence[Any]:
        """Lease up to `limit` due rows without suspects, the longest due first."""
        values = {**self.claim_values(term), "most": limit}
        return self._take_some.rows(connection, values)

    def has_suspects(self, connection: Connection, now: datetime) -> bool:
        """Return whether a suspect is due, or a row that has to be set aside."""
        values = {"now": to_milliseconds(now)}
        return bool(self._any_suspect.rows(connection, values))

    def find_suspect(self, connection: Connection, now: datetime) -> str | None:
        """Return the key of the suspect that has been due longest, or None."""
        values = {"now": to_milliseconds(now)}
        return next((str(row[0]) for row in self._suspects.rows(connection, values)), None)

    def take_one(self, connection: Connection, term: Term, key: str) -> Any:
        """Lease that row and return it, or None when another transaction has locked it."""
        values = {**self.claim_values(term), "one": key}
        return next(iter(self._take_one.rows(connection, values)), None)

    def find_dead(self, connection: Connection, now: datetime) -> list[str]:
        """Return the keys of due rows to be set aside: up to `_SET_ASIDE_AT_ONCE`."""
        values = {"now": to_milliseconds(now)}
        return [str(row[0]) for row in self._dead.rows(connection, values)]

    def renew(self, connection: Connection, term: Term, keys: Collection[str]) -> None:
        """Extend the owner's leases of `keys` to the term's end, each with its extra delay."""
        values = {**self.claim_values(term), "keys": list(keys)}
        connection.execute(self._renew, values)

    def release(
        self, connection: Connection, owner: str, keys: Collection[str], now: datetime
    ) -> None:
        """End the owner's leases of `keys` without counting them; the rows are due now."""
        values = {"owner": owner, "keys": list(keys), "then": to_milliseconds(now)}
        connection.execute(self._release, values)

    def give_back(self, connection: Connection, claim: Claim, due_at: datetime) -> None:
        """Requeue a row that was not tried, due then; the lease is not counted."""
        values = {"one": claim.key, "token": claim.token, "then": to_milliseconds(due_at)}
        connection.execute(self._give_back, values)

    def fail(
        self, connection: Connection, claim: Claim, reason: str, term: Term, *, final: bool
    ) -> None:
        """Requeue a row on which the worker failed, with growing delays; then hold it.

        With `final`, hold it at once.
        """
        values = {
            "one": claim.key,
            "token": claim.token,
            "then": to_milliseconds(term.now),
            "step": _milliseconds(term.step),
            "limit": 0 if final else MOST_TRIES,
            "why": without_nul(reason),
        }
        connection.execute(self._fail, values)

    def hold(self, connection: Connection, reasons: Mapping[str, str]) -> None:
        """Set rows aside, with the reason of each."""
        for key, reason in reasons.items():
            log.error("%s of %s is set aside: %s", key, self.table.name, reason)
            connection.execute(self._hold, {"one": key, "why": without_nul(reason)})


def read_rows(
    rows: Collection[Any], key: Callable[[Any], str], read: Callable[[Any], T]
) -> tuple[list[T], dict[str, str]]:
    """Return what `read` makes of the rows, and by key the errors of those it cannot read.

    One unreadable row must not stop the whole queue.
    """
    found: list[T] = []
    unreadable: dict[str, str] = {}
    for row in rows:
        try:
            found.append(read(row))
        except Exception as error:
            log.exception("%s cannot be read", key(row))
            unreadable[key(row)] = f"the row cannot be read: {error!r}"
    return found, unreadable


def _milliseconds(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)
