"""Destinations: the domains that mail is queued for, each with the date of its next query.

Theory of operation. A worker queries destinations that are due, not messages: messages for a domain
that does not respond are not read, so a million of them cost as little as one. `due_at` is never
later than the latest of three dates: the due date of the domain's earliest queued message, the end
of its block, and its last visit. A visit moves it to the end of the queue, so that all domains are
visited in rotation. Suspects (`leasing`) are not included: they are queried one by one, by their
own date. A destination that failed is blocked for a growing time; then one message is sent as a
probe. Whatever changes a message's date also updates its destination (`touch`); a visit that finds
no due message corrects the date.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, delete, func, insert, or_, select, update

from sendback.clock import from_optional_milliseconds, to_milliseconds
from sendback.store.engine.leasing import MOST_TRIES
from sendback.store.engine.sweeping import MAX_ROWS, SweepStep, Swept, behind_key
from sendback.store.engine.tables import destinations, outbox
from sendback.store.outbox.rows import IS_QUEUED, IS_TRUSTED, QUEUE


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a destination after so many failures in a row: no deliveries before `until`."""

    failures: int
    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A domain, how many messages wait for it, and its failures, block and pause."""

    domain: str
    waiting: int
    failures: int
    blocked_until: datetime | None
    is_paused: bool
    reason: str | None
    changed_at: datetime | None


_columns = destinations.c
_earliest = (
    select(func.min(outbox.c.due_at))
    .where(outbox.c.domain == bindparam("of_domain"), IS_TRUSTED)
    .scalar_subquery()
)
_TOUCH = (
    update(destinations)
    .where(_columns.domain == bindparam("of_domain"))
    .values(
        due_at=case(
            (_columns.blocked_until > _earliest, _columns.blocked_until),
            (_earliest < bindparam("floor"), bindparam("floor")),
            else_=_earliest,
        )
    )
)
_BLOCK = (
    update(destinations)
    .where(_columns.domain == bindparam("of_domain"))
    .values(
        failures=case(
            (_columns.failures < bindparam("n"), bindparam("n")), else_=_columns.failures
        ),
        blocked_until=bindparam("until"),
        reason=bindparam("why"),
        changed_at=bindparam("at"),
    )
)


@dataclass(frozen=True, slots=True)
class Due:
    """A destination that is due, and how often it failed in a row."""

    domain: str
    failures: int


def find_due(
    connection: Connection, now: datetime, limit: int, probes: int, full: Collection[str]
) -> list[Due]:
    """Return due destinations: up to `limit` without failures, up to `probes` with, none of `full`.

    Those that have been due longest come first in each group.
    """
    found: list[Due] = []
    for which, most in ((_columns.failures == 0, limit), (_columns.failures > 0, probes)):
        query = (
            select(_columns.domain, _columns.failures)
            .where(_columns.paused == 0, _columns.due_at <= to_milliseconds(now), which)
            .order_by(_columns.due_at)
            .limit(most)
            .with_for_update(skip_locked=True)
        )
        if full:
            query = query.where(_columns.domain.not_in(full))
        if most > 0:
            found += [Due(row.domain, row.failures) for row in connection.execute(query)]
    return found


_SUSPECT = (
    select(outbox.c.message_id, _columns.domain, _columns.failures)
    .join(destinations, _columns.domain == outbox.c.domain)
    .where(
        QUEUE.is_suspect,
        outbox.c.due_at <= bindparam("now"),
        outbox.c.tries < MOST_TRIES,
        _columns.paused == 0,
        or_(_columns.blocked_until.is_(None), _columns.blocked_until <= bindparam("now")),
    )
    .order_by(outbox.c.due_at)
    .limit(1)
)


def find_suspect(connection: Connection, now: datetime) -> tuple[str, Due] | None:
    """Return the ID of the suspect that has been due longest, and its destination, or None.

    A suspect whose destination is paused or blocked waits like other messages.
    """
    row = connection.execute(_SUSPECT, {"now": to_milliseconds(now)}).first()
    return (row.message_id, Due(row.domain, row.failures)) if row else None


def touch(
    connection: Connection, domains: Collection[str], visited_at: datetime | None = None
) -> None:
    """Update `due_at` of the domains, to `visited_at` at the earliest."""
    floor = to_milliseconds(visited_at) if visited_at else 0
    if domains:
        rows = [{"of_domain": domain, "floor": floor} for domain in sorted(domains)]
        connection.execute(_TOUCH, rows)


def add_destinations(connection: Connection, domains: Collection[str], due_at: datetime) -> None:
    """Add or update the destinations of messages that have just been queued, due then."""
    query = select(_columns.domain, _columns.due_at).where(_columns.domain.in_(domains))
    known = {row.domain: row.due_at for row in connection.execute(query)}
    due = to_milliseconds(due_at)
    new = [
        {"domain": domain, "due_at": due, "failures": 0, "paused": 0}
        for domain in domains
        if domain not in known
    ]
    if new:
        connection.execute(insert(destinations), new)
    touch(connection, [name for name, date in known.items() if date is None or date > due])


def begin_probe(connection: Connection, domain: str, until: datetime) -> None:
    """Block a destination until then, so that no other probe is sent meanwhile."""
    where, values = _columns.domain == domain, {"blocked_until": to_milliseconds(until)}
    connection.execute(update(destinations).where(where).values(values))


def block(connection: Connection, domain: str, block: Block, now: datetime) -> None:
    """Record a block of a destination; its count of failures never decreases here."""
    values = {
        "of_domain": domain,
        "n": block.failures,
        "until": to_milliseconds(block.until),
        "why": block.reason,
        "at": to_milliseconds(now),
    }
    connection.execute(_BLOCK, values)


def recover(connection: Connection, domains: Collection[str], now: datetime) -> None:
    """Reset the failures and the block of destinations that work again."""
    values: dict[str, Any] = {
        "failures": 0,
        "blocked_until": None,
        "reason": None,
        "changed_at": to_milliseconds(now),
    }
    connection.execute(update(destinations).where(_columns.domain.in_(domains)).values(values))


def unblock(connection: Connection, domains: Collection[str]) -> None:
    """End the blocks of destinations, which may be probed now; their failures stay."""
    where = (_columns.domain.in_(domains), _columns.blocked_until.is_not(None))
    connection.execute(update(destinations).where(*where).values(blocked_until=None))


@dataclass(frozen=True, slots=True)
class PauseDestination:
    """Pause all delivery to a domain, including mail that is queued later, or resume it.

    Returns whether the domain was known: an unknown one can only be paused.
    """

    domain: str
    paused: bool
    now: datetime

    def __call__(self, connection: Connection, /) -> bool:
        values = {"paused": int(self.paused), "changed_at": to_milliseconds(self.now)}
        if not self.paused:
            values["blocked_until"] = None  # type: ignore[assignment]
        where = _columns.domain == self.domain
        is_known = connection.execute(update(destinations).where(where).values(values)).rowcount > 0
        if not is_known and self.paused:
            connection.execute(
                insert(destinations), {"domain": self.domain, "failures": 0, **values}
            )
        touch(connection, [self.domain])
        return is_known


@dataclass(frozen=True, slots=True)
class ListDestinations:
    """Return the domains that have queued mail, have failed or are paused, in order of name."""

    def __call__(self, connection: Connection, /) -> Sequence[Destination]:
        waiting = (
            select(outbox.c.domain, func.count().label("waiting"))
            .where(IS_QUEUED)
            .group_by(outbox.c.domain)
            .subquery()
        )
        query = (
            select(destinations, func.coalesce(waiting.c.waiting, 0).label("waiting"))
            .outerjoin(waiting, waiting.c.domain == _columns.domain)
            .where(or_(waiting.c.waiting > 0, _columns.failures > 0, _columns.paused == 1))
            .order_by(_columns.domain)
        )
        return [_from_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetDestinations(SweepStep):
    """Delete destinations without queued mail that are not paused and did not fail since then."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        query = (
            select(
                _columns.domain,
                _columns.paused,
                _columns.due_at,
                _columns.failures,
                _columns.changed_at,
            )
            .where(*(_columns.domain > name for name in self.after))
            .order_by(_columns.domain)
            .limit(MAX_ROWS)
        )
        rows = connection.execute(query).all()
        idle = [row.domain for row in rows if self._is_idle(row)]
        # By the key alone: with more conditions SQLite scans all destinations that are not due.
        connection.execute(delete(destinations).where(_columns.domain.in_(idle)))
        return Swept(len(idle), behind_key(rows, len(rows), "domain"))

    def _is_idle(self, row: Any) -> bool:
        if row.paused or row.due_at is not None:
            return False
        return not row.failures or (row.changed_at or 0) < to_milliseconds(self.before)


def _from_row(row: Any) -> Destination:
    return Destination(
        domain=row.domain,
        waiting=row.waiting,
        failures=row.failures,
        blocked_until=from_optional_milliseconds(row.blocked_until),
        is_paused=bool(row.paused),
        reason=row.reason,
        changed_at=from_optional_milliseconds(row.changed_at),
    )
