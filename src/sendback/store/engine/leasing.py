"""Durable queues: rows that workers claim for a time.

Theory of operation. A row waits while its state is `queued`; a worker may take it once `due_at`
has come. Taking it (a lease) moves `due_at` to the lease's end and raises `lease_token`, in one
atomic UPDATE. Whoever marks a row must name the token that it was given: a worker that wakes after
its lease has passed to another finds its token stale, and marks nothing. A worker that lives renews
its leases; one that was killed leaves rows that fall due by themselves.

`tries` is how often a row was leased since a result was last recorded. Each lease raises it, a
recorded result sets it to 0, and giving the row back untouched takes the increment back. A row
whose worker died or failed therefore has a number that grows:

| `tries` before the lease | what happens |
| --- | --- |
| 0, 1 | it is taken with all others |
| 2 to 4 | it is a suspect: one at a time in each process |
| 5 | it is set aside: its state is `held`, with the reason, until somebody retries it |

One at a time, because the death of a process raises the number of all that was in progress in it:
an innocent row is cleared by its own result, and only the guilty one dies with its worker again.
Each failed lease also makes the next one later, by the square of `tries`.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Column, Connection, Table, bindparam, case, literal_column, select, update

from sendback.clock import to_milliseconds
from sendback.store.engine.column_types import without_nul

log = logging.getLogger(__name__)

QUEUED = "queued"
HELD = "held"
SUSPECT_TRIES = 2  # as in the conditions of the indexes (tables.py)
# Two leases beside others, because any of them may be guilty, and three alone: a power failure
# or a deployment that goes wrong three times in a row sets nothing aside.
MOST_TRIES = 5
DIED = f"its worker ended without a result {MOST_TRIES} times"
_SET_ASIDE_AT_ONCE = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Term:
    """A claim: whose it is, and from when until when."""

    owner: str
    now: datetime
    until: datetime

    @property
    def step(self) -> timedelta:
        """The wait after the first failure: a third of the lease, 10 s of the usual 30 s."""
        return (self.until - self.now) / 3


def penalty(step: timedelta, failures: int) -> timedelta:
    """How much later a row comes back after so many leases without a result."""
    return step * failures**2


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease of a row: the number of leases since a result, this one included; its token."""

    key: str
    token: int
    tries: int = 1


class LeaseQueue:
    """A table with `state`, `due_at`, `lease_owner`, `lease_token`, `tries`, and two more columns.

    `key` identifies a row; `reason` is the text that says why a row came back or was set aside.
    """

    def __init__(self, table: Table, key: Column[str], reason: Column[str | None]) -> None:
        columns = table.c
        self.table = table
        self.key = key
        # Written out, not bound: else the partial indexes are not used.
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
        self.take_some = self.taking(
            select(key)
            .where(self.is_trusted, is_due)
            .order_by(columns.due_at)
            .limit(bindparam("most"))
        )
        self._take_one = self.taking(select(key).where(key == bindparam("one")))
        self._suspects = (
            select(key)
            .where(self.is_suspect, is_due, columns.tries < MOST_TRIES)
            .order_by(columns.due_at)
            .limit(1)
        )
        self._dead = (
            select(key)
            .where(self.is_suspect, is_due, columns.tries >= MOST_TRIES)
            .limit(_SET_ASIDE_AT_ONCE)
        )
        self._any_suspect = select(key).where(self.is_suspect, is_due).limit(1)
        held = (columns.lease_owner == bindparam("owner"), self.is_queued)
        keys = key.in_(bindparam("keys", expanding=True))
        # The column counts this lease already.
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

    def taking(self, chosen: Any) -> Any:
        """The UPDATE that leases the chosen rows and returns them; see `claim_values`."""
        keys = chosen.with_for_update(skip_locked=True).scalar_subquery()
        return (
            update(self.table).where(self.key.in_(keys)).values(self._taken).returning(self.table)
        )

    @staticmethod
    def claim_values(term: Term) -> dict[str, object]:
        """What `taking` is bound to."""
        return {
            "now": to_milliseconds(term.now),
            "until": to_milliseconds(term.until),
            "step": _milliseconds(term.step),
            "owner": term.owner,
        }

    def take(self, connection: Connection, term: Term, limit: int) -> Sequence[Any]:
        """Lease up to `limit` due rows, the longest due first; none that are suspects."""
        values = {**self.claim_values(term), "most": limit}
        return connection.execute(self.take_some, values).all()

    def has_suspects(self, connection: Connection, now: datetime) -> bool:
        """Whether a suspect is due, or a row that has to be set aside."""
        values = {"now": to_milliseconds(now)}
        return connection.execute(self._any_suspect, values).first() is not None

    def find_suspect(self, connection: Connection, now: datetime) -> str | None:
        """The key of the suspect that has been due longest."""
        values = {"now": to_milliseconds(now)}
        found: str | None = connection.execute(self._suspects, values).scalar()
        return found

    def take_one(self, connection: Connection, term: Term, key: str) -> Any:
        """Lease that row and return it, or None when another worker has it."""
        values = {**self.claim_values(term), "one": key}
        return connection.execute(self._take_one, values).first()

    def find_dead(self, connection: Connection, now: datetime) -> list[str]:
        """The keys of due rows whose workers have ended too often, some at a time."""
        values = {"now": to_milliseconds(now)}
        return list(connection.execute(self._dead, values).scalars())

    def renew(self, connection: Connection, term: Term, keys: Collection[str]) -> None:
        """Keep what the owner holds of `keys` until the term's end, each with its penalty."""
        values = {**self.claim_values(term), "keys": list(keys)}
        connection.execute(self._renew, values)

    def release(
        self, connection: Connection, owner: str, keys: Collection[str], now: datetime
    ) -> None:
        """Give back what the owner still holds of `keys`, due now, as if it had not been taken."""
        values = {"owner": owner, "keys": list(keys), "then": to_milliseconds(now)}
        connection.execute(self._release, values)

    def give_back(self, connection: Connection, claim: Claim, due_at: datetime) -> None:
        """The row was not tried: it is due then, as if it had not been taken."""
        values = {"one": claim.key, "token": claim.token, "then": to_milliseconds(due_at)}
        connection.execute(self._give_back, values)

    def fail(
        self, connection: Connection, claim: Claim, reason: str, term: Term, *, final: bool
    ) -> None:
        """The worker failed on the row: it comes back later each time, and then is held.

        With `final` it is held at once.
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
        """Set rows aside, each with its reason."""
        for key, reason in reasons.items():
            log.error("%s of %s is set aside: %s", key, self.table.name, reason)
            connection.execute(self._hold, {"one": key, "why": without_nul(reason)})


def read_rows(
    rows: Collection[Any], key: Callable[[Any], str], read: Callable[[Any], T]
) -> tuple[list[T], dict[str, str]]:
    """Read each row; return what could be read, and by key why the others could not.

    One row that cannot be read must not keep its queue from being worked on.
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
