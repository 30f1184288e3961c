"""Destinations: the domains that mail is queued for, each with the date of its next query.

Theory of operation. A worker queries destinations that are due, not messages: messages for a domain
that does not respond are not read, so a million of them cost as little as one. `due_at` is never
later than the latest of three dates: the due date of the domain's earliest queued message, the end
of its block, and its last visit. A visit moves it to the end of the queue, so that all domains are
visited in rotation. Suspects (`leasing`) are not included: they are queried one by one, by their
own date. A destination that failed is blocked for a growing time; then one message is sent as a
probe. Whatever changes a message's date also updates its destination (`touch`); a visit that finds
no due message corrects the date.

Concurrency. A transaction changes destinations once, at its end, in order of their names
(`DestinationChanges`): many want the row of a busy domain, so it is locked only while the
transaction is committed, and no two transactions wait for each other. Queued mail only moves a date
forward. A date is recomputed in a statement after the one that locked the row: it sees the mail
that was queued while the lock was waited for, which would never be looked for otherwise.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    text,
    update,
)

from sendback.clock import from_optional_milliseconds, to_milliseconds
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.leasing import MOST_TRIES
from sendback.store.engine.locking import end_of_group, has_row_locks, lock_free, put_row
from sendback.store.engine.sweeping import MAX_ROWS, SweepStep, Swept, behind_key
from sendback.store.engine.tables import destinations, outbox
from sendback.store.engine.wakeups import Subject, wake
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
_TOUCH = HotStatement(
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
# The row is locked also where it is left as it is, which most mail does.
_ADD = HotStatement(
    text(
        "INSERT INTO destinations (domain, due_at, failures, paused) "
        "VALUES (:of_domain, :due, 0, 0) "
        "ON CONFLICT (domain) DO UPDATE SET due_at = CASE "
        "WHEN destinations.blocked_until > excluded.due_at THEN destinations.blocked_until "
        "ELSE excluded.due_at END "
        "WHERE (destinations.due_at IS NULL AND excluded.due_at IS NOT NULL) "
        "OR destinations.due_at > CASE "
        "WHEN destinations.blocked_until > excluded.due_at THEN destinations.blocked_until "
        "ELSE excluded.due_at END"
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
_RECOVER = (
    update(destinations)
    .where(_columns.domain == bindparam("of_domain"))
    .values(failures=0, blocked_until=None, reason=None, changed_at=bindparam("at"))
)
_UNBLOCK = (
    update(destinations)
    .where(_columns.domain == bindparam("of_domain"), _columns.blocked_until.is_not(None))
    .values(blocked_until=None)
)
_PROBE = (
    update(destinations)
    .where(
        _columns.domain == bindparam("of_domain"),
        _columns.paused == 0,
        _columns.failures > 0,
        or_(_columns.blocked_until.is_(None), _columns.blocked_until <= bindparam("now")),
    )
    .values(blocked_until=bindparam("until"))
)


@dataclass(slots=True)
class DestinationChanges:
    """What a transaction does to destinations, done at the end of its group."""

    queued: dict[str, int] = field(default_factory=dict)  # the earliest due date
    touched: dict[str, int] = field(default_factory=dict)  # the date of the visit, or 0
    changes: list[tuple[str, Executable, dict[str, Any]]] = field(default_factory=list)

    def queue(self, domain: str, due_at: datetime) -> None:
        """Note that a message was queued, due then."""
        due = to_milliseconds(due_at)
        self.queued[domain] = min(due, self.queued.get(domain, due))

    def touch(self, domains: Collection[str], visited_at: datetime | None = None) -> None:
        """Recompute the dates of the domains: at the earliest `visited_at`."""
        floor = to_milliseconds(visited_at) if visited_at else 0
        for domain in domains:
            self.touched[domain] = max(floor, self.touched.get(domain, 0))

    def change(self, domain: str, statement: Executable, **values: Any) -> None:
        """Run the statement for the domain, before its date is recomputed."""
        self.changes.append((domain, statement, {"of_domain": domain, **values}))
        self.touch([domain])

    def begin_probes(
        self, connection: Connection, domains: Collection[str], now: datetime, until: datetime
    ) -> set[str]:
        """Block failed destinations until then, so that no other probe is sent meanwhile.

        Returns those that may be probed; of the others, another transaction sends a probe.
        """
        if not domains:
            return set()
        self.touch(domains)
        self._lock(connection)
        dates = {"now": to_milliseconds(now), "until": to_milliseconds(until)}
        return {
            domain
            for domain in sorted(domains)
            if connection.execute(_PROBE, {"of_domain": domain, **dates}).rowcount
        }

    def settle(self, connection: Connection, /) -> None:
        """Do it."""
        self._lock(connection)
        for _, statement, values in self.changes:
            connection.execute(statement, values)
        self.changes = []
        if self.touched:
            rows = [{"of_domain": name, "floor": at} for name, at in sorted(self.touched.items())]
            _TOUCH.run_all(connection, rows)
            self.touched = {}

    def _lock(self, connection: Connection) -> None:
        """Lock all of them, in order of their names, and move the dates of those with new mail."""
        names = set(self.queued)
        if has_row_locks(connection):
            names |= self.touched.keys()
        if names:
            rows = [{"of_domain": name, "due": self.queued.get(name)} for name in sorted(names)]
            _ADD.run_all(connection, rows)
        self.queued = {}


@dataclass(frozen=True, slots=True)
class Due:
    """A destination that is due, and how often it failed in a row."""

    domain: str
    failures: int


def _due(which: Any) -> HotStatement:
    return HotStatement(
        select(_columns.domain, _columns.failures)
        .where(
            _columns.paused == 0,
            _columns.due_at <= bindparam("now"),
            which,
            _columns.domain.not_in(bindparam("full", expanding=True)),
        )
        .order_by(_columns.due_at)
        .limit(bindparam("most"))
    )


_DUE = _due(_columns.failures == 0)
_DUE_PROBES = _due(_columns.failures > 0)


def find_due(
    connection: Connection, now: datetime, limit: int, probes: int, full: Collection[str]
) -> list[Due]:
    """Return due destinations: up to `limit` without failures, up to `probes` with, none of `full`.

    Those that have been due longest come first in each group. Without locks: a busy domain would
    be skipped while mail is queued for it.
    """
    values = {"now": to_milliseconds(now), "full": list(full)}
    found: list[Due] = []
    for query, most in ((_DUE, limit), (_DUE_PROBES, probes)):
        if most > 0:
            rows = query.rows(connection, {**values, "most": most})
            found += [Due(row.domain, row.failures) for row in rows]
    return found


_SUSPECT = HotStatement(
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
    for row in _SUSPECT.rows(connection, {"now": to_milliseconds(now)}):
        return row.message_id, Due(row.domain, row.failures)
    return None


def touch(connection: Connection, domains: Collection[str]) -> None:
    """Recompute the dates of the domains at the end of the group: the dates of messages changed."""
    if domains:
        with end_of_group(connection, DestinationChanges) as end:
            end.touch(domains)


def add_destinations(connection: Connection, due_dates: Collection[tuple[str, datetime]]) -> None:
    """Add or update the destinations of messages that have just been queued, due then."""
    with end_of_group(connection, DestinationChanges) as end:
        for domain, due_at in due_dates:
            end.queue(domain, due_at)


def record_results(
    connection: Connection,
    blocks: Mapping[str, Block],
    recovered: Collection[str],
    requeued: Collection[str],
    now: datetime,
) -> None:
    """Block destinations, reset the failures of those that work again, recompute all dates.

    The count of a destination's failures never decreases by a block.
    """
    at = to_milliseconds(now)
    with end_of_group(connection, DestinationChanges) as end:
        for domain, block in blocks.items():
            until = to_milliseconds(block.until)
            end.change(domain, _BLOCK, n=block.failures, until=until, why=block.reason, at=at)
        for domain in recovered:
            end.change(domain, _RECOVER, at=at)
        end.touch(requeued)


def unblock(connection: Connection, domains: Collection[str]) -> None:
    """End the blocks of destinations, which may be probed now; their failures stay."""
    with end_of_group(connection, DestinationChanges) as end:
        for domain in domains:
            end.change(domain, _UNBLOCK)


@dataclass(frozen=True, slots=True)
class PauseDestination:
    """Pause all delivery to a domain, including mail that is queued later, or resume it.

    Returns whether the domain was known: an unknown one can only be paused.
    """

    domain: str
    paused: bool
    now: datetime

    def __call__(self, connection: Connection, /) -> bool:
        where = _columns.domain == self.domain
        is_known = connection.execute(select(_columns.domain).where(where)).first() is not None
        values: dict[str, Any] = {
            "paused": int(self.paused),
            "changed_at": to_milliseconds(self.now),
        }
        if self.paused:
            put_row(connection, destinations, {"domain": self.domain}, values, {"failures": 0})
        else:
            values["blocked_until"] = None
            connection.execute(update(destinations).where(where).values(values))
        if is_known or self.paused:
            touch(connection, [self.domain])
        if is_known and not self.paused:
            wake(connection, Subject.DELIVERY)
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
        seen = [row.domain for row in rows if self._is_idle(row)]
        # Mail may have been queued for one meanwhile.
        is_idle = (_columns.due_at.is_(None), _columns.paused == 0)
        idle = lock_free(connection, _columns.domain, seen, *is_idle)
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
