"""The outbox: the durable queue of outgoing mail.

How leases work: `leasing`. Which rows are read for new leases: `destinations`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Self

from sqlalchemy import Connection, bindparam, case, delete, func, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.column_types import without_nul
from sendback.store.engine.errors import LeaseLostError, RefusedError
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.leasing import DIED, Claim, Term, read_rows
from sendback.store.engine.locking import Place, end_of_group, has_row_locks, lock_free
from sendback.store.engine.sweeping import Budget, SweepStep, Swept, behind, in_order
from sendback.store.engine.tables import attempts, outbox, outbox_contents
from sendback.store.engine.transactions import BatchUnit
from sendback.store.engine.wakeups import Subject, wake
from sendback.store.outbox.destinations import (
    Block,
    DestinationChanges,
    add_destinations,
    find_due,
    find_suspect,
    record_results,
    touch,
)
from sendback.store.outbox.rows import (
    IS_QUEUED,
    IS_TRUSTED,
    QUEUE,
    Attempt,
    Lease,
    OutboxMessage,
    OutboxState,
    find_whole,
    from_row,
    to_content_row,
    to_row,
)

_FINISHED = frozenset(
    state.value for state in OutboxState if state not in {OutboxState.QUEUED, OutboxState.HELD}
)
_ADD = HotStatement(insert(outbox))
_ADD_CONTENTS = HotStatement(insert(outbox_contents))
_ADD_ATTEMPTS = HotStatement(insert(attempts))
# On PostgreSQL the rows stay locked until their results are recorded.
_TOKENS = HotStatement(
    select(outbox.c.message_id, outbox.c.lease_token)
    .where(outbox.c.message_id.in_(bindparam("messages", expanding=True)), IS_QUEUED)
    .order_by(outbox.c.message_id)
    .with_for_update()
)
_MARK = HotStatement(
    update(outbox)
    .where(outbox.c.message_id == bindparam("message"))
    .values(
        state=bindparam("new_state"),
        due_at=bindparam("new_due"),
        attempts=bindparam("number"),
        last_reply=bindparam("reply"),
        tries=bindparam("new_tries"),
        lease_owner=None,
    )
)
_REQUEUE = (
    update(outbox)
    .where(outbox.c.message_id == bindparam("message"))
    .values(
        due_at=bindparam("new_due"),
        lease_owner=None,
        tries=case((outbox.c.tries > 0, outbox.c.tries - 1), else_=0),
        last_reply=func.coalesce(bindparam("reply"), outbox.c.last_reply),
    )
)
_TAKE = QUEUE.taking(
    select(outbox.c.message_id)
    .where(
        outbox.c.domain == bindparam("of_domain"),
        IS_TRUSTED,
        outbox.c.due_at <= bindparam("now"),
    )
    .order_by(outbox.c.due_at)
    .limit(bindparam("most"))
)
_DOMAINS = select(outbox.c.domain).where(
    outbox.c.message_id.in_(bindparam("messages", expanding=True))
)


def add_to_outbox(connection: Connection, messages: Sequence[OutboxMessage]) -> None:
    """Queue new messages, due at once if they have no due date."""
    if not messages:
        return
    _ADD.run_all(connection, [to_row(message) for message in messages])
    _ADD_CONTENTS.run_all(connection, [to_content_row(message) for message in messages])
    add_destinations(
        connection, [(message.domain, message.due_at or message.created_at) for message in messages]
    )
    wake(connection, Subject.DELIVERY)


@dataclass(frozen=True, slots=True)
class TakeLeases:
    """Lease up to `limit` due rows, destination by destination.

    `capacities` has the capacity of some domains, `capacity` is that of any other. Of up to
    `probes` domains that had failed, one message each is leased.
    """

    term: Term
    limit: int
    capacity: int
    probes: int
    capacities: Mapping[str, int]

    place: ClassVar = Place.TAKING

    def __call__(self, connection: Connection, /) -> Sequence[Lease]:
        full = [domain for domain, capacity in self.capacities.items() if capacity <= 0]
        failures: dict[str, int] = {}  # of each message's domain
        probes: dict[str, str] = {}  # the message by its domain
        with end_of_group(connection, DestinationChanges) as end:
            for due in find_due(connection, self.term.now, self.limit, self.probes, full):
                left = self.limit - len(failures)
                if left <= 0:
                    break
                capacity = (
                    1 if due.failures else min(left, self.capacities.get(due.domain, self.capacity))
                )
                taken = self._take(connection, due.domain, capacity)
                failures |= dict.fromkeys(taken, due.failures)
                if due.failures and taken:
                    probes[due.domain] = taken[0]
                end.touch([due.domain], self.term.now)
            lost = _begin_probes(connection, end, self.term, probes)
        return _leases(connection, {key: failures[key] for key in failures if key not in lost})

    def _take(self, connection: Connection, domain: str, most: int) -> list[str]:
        values = {**QUEUE.claim_values(self.term), "of_domain": domain, "most": most}
        return [row.message_id for row in _TAKE.rows(connection, values)]


@dataclass(frozen=True, slots=True)
class HasSuspects:
    """Return whether `TakeSuspect` has anything to do."""

    now: datetime

    def __call__(self, connection: Connection, /) -> bool:
        dead = QUEUE.find_dead(connection, self.now)
        return bool(dead) or find_suspect(connection, self.now) is not None


@dataclass(frozen=True, slots=True)
class TakeSuspect:
    """Lease the suspect that has been due longest, if any; set aside what failed too often."""

    term: Term

    def __call__(self, connection: Connection, /) -> Lease | None:
        dead = QUEUE.find_dead(connection, self.term.now)
        _hold(connection, dict.fromkeys(dead, DIED))
        found = find_suspect(connection, self.term.now)
        if found is None:
            return None
        key, due = found
        if QUEUE.take_one(connection, self.term, key) is None:
            return None
        if due.failures:
            with end_of_group(connection, DestinationChanges) as end:
                if _begin_probes(connection, end, self.term, {due.domain: key}):
                    return None
        leases = _leases(connection, {key: due.failures})
        return leases[0] if leases else None


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Extend the owner's leases of `message_ids` to the term's end."""

    place: ClassVar = Place.OUTBOX

    term: Term
    message_ids: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> None:
        QUEUE.renew(connection, self.term, self.message_ids)


@dataclass(frozen=True, slots=True)
class FailDelivery:
    """Requeue a message on which the worker failed, with growing delays; then hold it."""

    place: ClassVar = Place.OUTBOX

    lease: Lease
    reason: str
    term: Term
    final: bool = False

    def __call__(self, connection: Connection, /) -> None:
        message = self.lease.message
        claim = Claim(message.message_id, self.lease.token, self.lease.tries)
        QUEUE.fail(connection, claim, self.reason, self.term, final=self.final)
        touch(connection, [message.domain])


@dataclass(frozen=True, slots=True)
class Requeue(BatchUnit[None]):
    """Requeue a row that was not tried, due then. `reason`, if given, replaces the last reply."""

    place: ClassVar = Place.OUTBOX

    lease: Lease
    due_at: datetime
    reason: str | None = None

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[None]:
        held = _still_held(connection, [unit.lease for unit in units])
        rows = [
            {
                "message": unit.lease.message.message_id,
                "new_due": to_milliseconds(unit.due_at),
                "reply": unit.reason,
            }
            for unit, is_held in zip(units, held, strict=True)
            if is_held
        ]
        if rows:
            connection.execute(_REQUEUE, rows)
            wake(connection, Subject.DELIVERY)
        touch(connection, {unit.lease.message.domain for unit in units})
        return [None] * len(units)


@dataclass(frozen=True, slots=True)
class RecordAttempt(BatchUnit[None]):
    """Record a delivery attempt and change the row's state. Raises `LeaseLostError`.

    With `block` the destination has failed; without it a failed destination has recovered. An
    attempt that ended in an internal error is no result: the row stays `is_suspect`.
    """

    place: ClassVar = Place.OUTBOX

    lease: Lease
    attempt: Attempt
    state: OutboxState
    due_at: datetime
    block: Block | None = None
    is_suspect: bool = False

    @classmethod
    def run_together(
        cls, connection: Connection, units: Sequence[Self]
    ) -> Sequence[RefusedError | None]:
        held = _still_held(connection, [unit.lease for unit in units])
        written = [unit for unit, is_held in zip(units, held, strict=True) if is_held]
        if written:
            _MARK.run_all(connection, [unit._mark() for unit in written])  # noqa: SLF001
            _ADD_ATTEMPTS.run_all(connection, [unit._row() for unit in written])  # noqa: SLF001
        _update_destinations(connection, written)
        return [
            None if is_held else LeaseLostError(unit.lease.message.message_id)
            for unit, is_held in zip(units, held, strict=True)
        ]

    @property
    def domain(self) -> str:
        return self.lease.message.domain

    def _mark(self) -> dict[str, object]:
        return {
            "message": self.lease.message.message_id,
            "new_state": self.state.value,
            "new_due": to_milliseconds(self.due_at),
            "number": self.lease.message.attempts + 1,
            "reply": without_nul(self.attempt.reply),
            "new_tries": self.lease.tries if self.is_suspect else 0,
        }

    def _row(self) -> dict[str, object]:
        return {
            "message_id": self.lease.message.message_id,
            "number": self.lease.message.attempts + 1,
            "started_at": to_milliseconds(self.attempt.started_at),
            "milliseconds": self.attempt.milliseconds,
            "outcome": self.attempt.outcome.value,
            "peer": without_nul(self.attempt.peer),
            "tls": self.attempt.tls,
            "reply": without_nul(self.attempt.reply),
            "tls_policy": self.attempt.tls_policy,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetFinished(SweepStep):
    """Delete finished messages created before `before`, with their contents and attempts."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        old_ones = select(outbox.c.message_id, outbox.c.created_at, outbox.c.state).where(
            outbox.c.created_at < to_milliseconds(self.before)
        )
        # The rows to skip are skipped in the index, without reading their contents.
        date, key = outbox.c.created_at, outbox.c.message_id
        chosen = in_order(connection, old_ones, date, key, self.after).subquery()
        contents = outbox_contents.c
        belongings = select(func.count()).where(attempts.c.message_id == chosen.c.message_id)
        octets = func.length(contents.content) + func.coalesce(func.length(contents.fallback), 0)
        query = select(
            chosen, octets.label("octets"), belongings.scalar_subquery().label("tried")
        ).outerjoin(outbox_contents, contents.message_id == chosen.c.message_id)
        # The order of `in_order`, which the join need not keep.
        has_ties = has_row_locks(connection)
        rows = sorted(
            connection.execute(query),
            key=lambda row: (int(row.created_at), row.message_id if has_ties else ""),
        )
        budget: Budget[Any] = Budget()
        looked_at = budget.take(rows, lambda row: (row.octets or 0, row.tried)).chosen
        old = [row.message_id for row in looked_at if row.state in _FINISHED]
        # An operator may be retrying one.
        is_finished = outbox.c.state.in_(_FINISHED)
        free = lock_free(connection, outbox.c.message_id, old, is_finished)
        connection.execute(delete(outbox).where(outbox.c.message_id.in_(free)))
        after = behind(
            looked_at, len(rows), "created_at", self.after, lambda row: row.state not in _FINISHED
        )
        return Swept(len(old), after)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireWaiting(SweepStep):
    """Set overdue messages to `expired`, except leased ones: their worker checks the date."""

    now: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        columns = outbox.c
        query = select(columns.message_id, columns.expires_at, columns.lease_owner).where(
            IS_QUEUED, columns.expires_at < to_milliseconds(self.now)
        )
        # Without rows that are locked, as they are being leased or their results recorded.
        ordered = in_order(connection, query, columns.expires_at, columns.message_id, self.after)
        rows = connection.execute(ordered.with_for_update(skip_locked=True)).all()
        overdue = [row.message_id for row in rows if row.lease_owner is None]
        where = columns.message_id.in_(overdue)
        values = {"state": OutboxState.EXPIRED.value}
        connection.execute(update(outbox).where(where).values(values))
        after = behind(
            rows, len(rows), "expires_at", self.after, lambda row: row.lease_owner is not None
        )
        return Swept(len(overdue), after)


def _leases(connection: Connection, failures: Mapping[str, int]) -> Sequence[Lease]:
    """Return the leases of rows that were just leased; set aside a row that cannot be read.

    `failures` has the failures of each row's destination, by message ID.
    """
    rows = find_whole(connection, failures) if failures else {}

    def read(key: str) -> Lease:
        row = rows[key]
        return Lease(from_row(row), row.lease_token, failures[key], row.tries)

    leases, unreadable = read_rows(tuple(failures), str, read)
    _hold(connection, unreadable)
    return leases


def _begin_probes(
    connection: Connection, end: DestinationChanges, term: Term, probes: Mapping[str, str]
) -> Collection[str]:
    """Begin probes by the leased message of each domain; return those that were not needed.

    Another transaction has begun a probe of their domains: their leases are released.
    """
    begun = end.begin_probes(connection, probes.keys(), term.now, term.until)
    lost = [key for domain, key in probes.items() if domain not in begun]
    if lost:
        QUEUE.release(connection, term.owner, lost, term.now)
    return lost


def _hold(connection: Connection, reasons: Mapping[str, str]) -> None:
    if reasons:
        QUEUE.hold(connection, reasons)
        touch(connection, _domains_of(connection, reasons))


def _domains_of(connection: Connection, message_ids: Collection[str]) -> set[str]:
    values = {"messages": list(message_ids)}
    return set(connection.execute(_DOMAINS, values).scalars())


def _still_held(connection: Connection, leases: Sequence[Lease]) -> list[bool]:
    """Return whether each lease is still the row's last one, and the row is still queued."""
    values = {"messages": [lease.message.message_id for lease in leases]}
    tokens = {row.message_id: row.lease_token for row in _TOKENS.rows(connection, values)}
    return [tokens.get(lease.message.message_id) == lease.token for lease in leases]


def _update_destinations(connection: Connection, units: Sequence[RecordAttempt]) -> None:
    if not units:
        return
    blocks = {unit.domain: unit.block for unit in units if unit.block}
    back = {unit.domain for unit in units if unit.lease.failures} - blocks.keys()
    again = {unit.domain for unit in units if unit.state is OutboxState.QUEUED}
    now = max(unit.attempt.started_at for unit in units)
    record_results(connection, blocks, back, again, now)


@dataclass(frozen=True, slots=True)
class CountSince:
    """Return how many messages the account has queued since `since`."""

    account_id: str
    since: datetime

    def __call__(self, connection: Connection, /) -> int:
        query = select(func.count()).where(
            outbox.c.account_id == self.account_id,
            outbox.c.created_at > to_milliseconds(self.since),
        )
        return connection.execute(query).scalar_one()


@dataclass(frozen=True, slots=True)
class CountByBucket:
    """Return (start of the bucket, messages queued in it, how many of them failed), in order.

    A bucket is `milliseconds` long.
    """

    account_id: str
    since: datetime
    milliseconds: int

    def __call__(self, connection: Connection, /) -> Sequence[tuple[datetime, int, int]]:
        bucket = (outbox.c.created_at - outbox.c.created_at % self.milliseconds).label("bucket")
        failed = func.sum((outbox.c.state == OutboxState.FAILED.value).cast(_INTEGER))
        query = (
            select(bucket, func.count(), failed)
            .where(
                outbox.c.account_id == self.account_id,
                outbox.c.created_at > to_milliseconds(self.since),
            )
            .group_by(bucket)
            .order_by(bucket)
        )
        rows = connection.execute(query).all()
        return [(from_milliseconds(start), count, int(bad or 0)) for start, count, bad in rows]


_INTEGER = outbox.c.attempts.type
