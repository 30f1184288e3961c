"""The processing of received messages by rules: a durable queue, and the record of its steps.

How leases work: `leasing`. A row is added in the transaction that stores the message.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

from sqlalchemy import (
    Connection,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.receipt.model import Disposition
from sendback.receipt.plan import StepOutcome
from sendback.store.engine.column_types import without_nul
from sendback.store.engine.errors import LeaseLostError, RefusedError
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.leasing import DIED, QUEUED, Claim, LeaseQueue, Term, read_rows
from sendback.store.engine.locking import Place, lock_free
from sendback.store.engine.sweeping import Budget, SweepStep, Swept, behind, in_order
from sendback.store.engine.tables import processing, steps
from sendback.store.engine.transactions import BatchUnit
from sendback.store.engine.wakeups import Subject, wake
from sendback.store.outbox.queue import add_to_outbox
from sendback.store.outbox.rows import OutboxMessage


class ProcessingState(StrEnum):
    """The state of a message's processing.

    `held`: set aside, because it broke its worker; `dropped`: ended by the operator.
    """

    QUEUED = "queued"
    HELD = "held"
    DONE = "done"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Processing:
    """The processing of a message by the rules that were active when it was received.

    `verdicts` is the JSON of `receipt.verdicts.Verdicts` once an action needed them. `reason` is
    why it is held or dropped, or why a worker last failed on it.
    """

    processing_id: str
    message_id: str
    account_id: str
    rule_set: str
    version: str
    created_at: datetime
    due_at: datetime
    state: ProcessingState = ProcessingState.QUEUED
    verdicts: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """The result of one action of one rule for one message, and its attempts.

    `milliseconds` is the duration of the last attempt; `due_at` is the date of the next one, if
    any. `broken` is how many attempts in a row ended in an internal error.
    """

    rule_number: int
    action_number: int
    rule: str
    action: str
    outcome: StepOutcome
    disposition: Disposition
    attempts: int
    first_at: datetime
    last_at: datetime
    due_at: datetime
    milliseconds: int
    result: str
    broken: int = 0


QUEUE = LeaseQueue(processing, processing.c.processing_id, processing.c.reason)
_ADD = HotStatement(insert(processing))
_ADD_STEPS = HotStatement(insert(steps))
_STEPS = HotStatement(
    select(steps)
    .where(steps.c.processing_id.in_(bindparam("keys", expanding=True)))
    .order_by(steps.c.rule_number, steps.c.action_number)
)
_MARK = HotStatement(
    update(processing)
    .where(
        processing.c.processing_id == bindparam("key"),
        processing.c.lease_token == bindparam("token"),
        QUEUE.is_queued,
    )
    .values(
        state=bindparam("new_state"),
        due_at=bindparam("new_due"),
        verdicts=bindparam("new_verdicts"),
        lease_owner=bindparam("new_owner"),
        tries=bindparam("new_tries"),
        reason=bindparam("why"),
    )
)
_KEY = (
    steps.c.processing_id == bindparam("key"),
    steps.c.rule_number == bindparam("rule_at"),
    steps.c.action_number == bindparam("action_at"),
)


@dataclass(frozen=True, slots=True)
class ProcessingLease:
    """A worker's lease of a message's processing, and the steps so far.

    `tries` is the number of leases since a result was recorded, this one included.
    """

    processing: Processing
    token: int
    steps: tuple[StepRecord, ...] = ()
    tries: int = 1

    @property
    def claim(self) -> Claim:
        return Claim(self.processing.processing_id, self.token, self.tries)


@dataclass(frozen=True, slots=True)
class TakeProcessing:
    """Lease up to `limit` due rows without suspects, the longest due first."""

    place: ClassVar = Place.PROCESSING

    term: Term
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[ProcessingLease]:
        return _leases(connection, QUEUE.take(connection, self.term, self.limit))


@dataclass(frozen=True, slots=True)
class HasSuspectProcessing:
    """Return whether `TakeSuspectProcessing` has anything to do."""

    now: datetime

    def __call__(self, connection: Connection, /) -> bool:
        return QUEUE.has_suspects(connection, self.now)


@dataclass(frozen=True, slots=True)
class TakeSuspectProcessing:
    """Lease the suspect that has been due longest, if any; set aside what failed too often."""

    term: Term

    def __call__(self, connection: Connection, /) -> ProcessingLease | None:
        dead = QUEUE.find_dead(connection, self.term.now)
        QUEUE.hold(connection, dict.fromkeys(dead, DIED))
        key = QUEUE.find_suspect(connection, self.term.now)
        row = QUEUE.take_one(connection, self.term, key) if key else None
        leases = _leases(connection, [row]) if row else ()
        return leases[0] if leases else None


@dataclass(frozen=True, slots=True)
class RenewProcessing:
    """Extend the owner's leases of `keys` to the term's end."""

    place: ClassVar = Place.PROCESSING

    term: Term
    keys: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> None:
        QUEUE.renew(connection, self.term, self.keys)


@dataclass(frozen=True, slots=True)
class ReleaseProcessing:
    """Requeue at a clean shutdown what `owner` has leased of `keys`, due now."""

    place: ClassVar = Place.PROCESSING

    owner: str
    keys: tuple[str, ...]
    now: datetime

    def __call__(self, connection: Connection, /) -> None:
        QUEUE.release(connection, self.owner, self.keys, self.now)
        wake(connection, Subject.PROCESSING)


@dataclass(frozen=True, slots=True)
class GiveBackProcessing:
    """Requeue a message that was not processed, due then; the lease is not counted."""

    place: ClassVar = Place.PROCESSING

    lease: ProcessingLease
    due_at: datetime

    def __call__(self, connection: Connection, /) -> None:
        QUEUE.give_back(connection, self.lease.claim, self.due_at)


@dataclass(frozen=True, slots=True)
class FailProcessing:
    """Requeue a message on which the worker failed, with growing delays; then hold it.

    With `final`, hold it at once.
    """

    place: ClassVar = Place.PROCESSING

    lease: ProcessingLease
    reason: str
    term: Term
    final: bool = False

    def __call__(self, connection: Connection, /) -> None:
        QUEUE.fail(connection, self.lease.claim, self.reason, self.term, final=self.final)


@dataclass(frozen=True, slots=True)
class RecordProgress(BatchUnit[None]):
    """Record steps with the bounces that they send. Raises `LeaseLostError`: nothing is recorded.

    With `keep`, the worker continues and its lease ends at `due_at`; otherwise the row is released,
    due then. `tries` is the row's new value; `reason` is why it is held.
    """

    place: ClassVar = Place.PROCESSING

    lease: ProcessingLease
    owner: str
    steps: tuple[StepRecord, ...]
    bounces: tuple[OutboxMessage, ...]
    verdicts: str | None
    state: ProcessingState
    due_at: datetime
    keep: bool
    tries: int = 0
    reason: str | None = None

    @classmethod
    def run_together(
        cls, connection: Connection, units: Sequence[Self]
    ) -> Sequence[RefusedError | None]:
        marks = {
            id(unit): unit._mark(connection)  # noqa: SLF001 - its own class
            for unit in sorted(units, key=lambda unit: unit.lease.processing.processing_id)
        }
        marked = [marks[id(unit)] for unit in units]
        written = [unit for unit, ok in zip(units, marked, strict=True) if ok]
        add_to_outbox(connection, [bounce for unit in written for bounce in unit.bounces])
        records = [
            (unit.lease.processing.processing_id, step) for unit in written for step in unit.steps
        ]
        new = [_step_to_row(key, step) for key, step in records if step.attempts == 1]
        if new:
            _ADD_STEPS.run_all(connection, new)
        for key, step in records:
            if step.attempts > 1:
                where = {"key": key, "rule_at": step.rule_number, "action_at": step.action_number}
                row = _step_to_row(key, step)
                connection.execute(update(steps).where(*_KEY).values(row), where)
        return [
            None if ok else LeaseLostError(unit.lease.processing.processing_id)
            for unit, ok in zip(units, marked, strict=True)
        ]

    def _mark(self, connection: Connection) -> bool:
        values = {
            "key": self.lease.processing.processing_id,
            "token": self.lease.token,
            "new_state": self.state.value,
            "new_due": to_milliseconds(self.due_at),
            "new_verdicts": self.verdicts,
            "new_owner": self.owner if self.keep else None,
            "new_tries": self.tries,
            "why": without_nul(self.reason) if self.reason else None,
        }
        return _MARK.run(connection, values) == 1


@dataclass(frozen=True, slots=True)
class FindProcessing:
    """Return the message's processing and its steps in order, or None when there is none."""

    account_id: str
    message_id: str

    def __call__(self, connection: Connection, /) -> tuple[Processing, Sequence[StepRecord]] | None:
        key = processing_id(self.message_id, self.account_id)
        query = select(processing).where(processing.c.processing_id == key)
        row = connection.execute(query).first()
        if row is None:
            return None
        return _from_row(row), list(map(_step_from_row, _step_rows(connection, [key]).get(key, [])))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetProcessed(SweepStep):
    """Delete processing that is done, dropped or held, of messages received before `before`."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        columns = processing.c
        belongings = (
            select(func.count())
            .where(steps.c.processing_id == columns.processing_id)
            .scalar_subquery()
        )
        query = select(columns.processing_id, columns.created_at, belongings.label("steps")).where(
            columns.state != literal_column(f"'{QUEUED}'"),
            columns.created_at < to_milliseconds(self.before),
        )
        rows = connection.execute(
            in_order(connection, query, columns.created_at, columns.processing_id, self.after)
        ).all()
        budget: Budget[Any] = Budget()
        old = budget.take(rows, lambda row: (0, row.steps)).chosen
        # An operator may be retrying one.
        keys = [row.processing_id for row in old]
        is_ended = columns.state != literal_column(f"'{QUEUED}'")
        free = lock_free(connection, columns.processing_id, keys, is_ended)
        connection.execute(delete(processing).where(columns.processing_id.in_(free)))
        after = behind(old, len(rows), "created_at", self.after, lambda _: False)
        return Swept(len(old), after)


def processing_id(message_id: str, account_id: str) -> str:
    """Return the key of a message's processing for one account."""
    return f"{message_id}/{account_id}"


def add_processing(connection: Connection, rows: Sequence[tuple[Processing, str | None]]) -> None:
    """Queue processing, in the transaction that stores the messages; with an owner, leased."""
    if rows:
        _ADD.run_all(connection, [_to_row(*row) for row in rows])
    if any(owner is None for _, owner in rows):
        wake(connection, Subject.PROCESSING)


def key_of(message_id: Any, account_id: Any) -> Any:
    """Return `processing_id` of two columns as an SQL expression."""
    return message_id + "/" + account_id


def _leases(connection: Connection, rows: Sequence[Any]) -> Sequence[ProcessingLease]:
    """Return the leases of rows that were just leased; set aside a row that cannot be read."""
    done = _step_rows(connection, [row.processing_id for row in rows])

    def read(row: Any) -> ProcessingLease:
        steps_of_row = tuple(map(_step_from_row, done.get(row.processing_id, ())))
        return ProcessingLease(_from_row(row), row.lease_token, steps_of_row, row.tries)

    leases, unreadable = read_rows(rows, lambda row: str(row.processing_id), read)
    QUEUE.hold(connection, unreadable)
    return leases


def _step_rows(connection: Connection, keys: Sequence[str]) -> Mapping[str, list[Any]]:
    """Return the rows of the steps of each key, in order."""
    if not keys:
        return {}
    found: dict[str, list[Any]] = {}
    for row in _STEPS.rows(connection, {"keys": keys}):
        found.setdefault(row.processing_id, []).append(row)
    return found


def _to_row(entry: Processing, owner: str | None) -> dict[str, object]:
    return {
        "processing_id": entry.processing_id,
        "message_id": entry.message_id,
        "account_id": entry.account_id,
        "version": entry.version,
        "rule_set": entry.rule_set,
        "created_at": to_milliseconds(entry.created_at),
        "state": entry.state.value,
        "due_at": to_milliseconds(entry.due_at),
        "lease_owner": owner,
        "lease_token": 1 if owner else 0,
        "tries": 1 if owner else 0,
    }


def _from_row(row: Any) -> Processing:
    return Processing(
        processing_id=row.processing_id,
        message_id=row.message_id,
        account_id=row.account_id,
        rule_set=row.rule_set,
        version=row.version,
        verdicts=row.verdicts,
        created_at=from_milliseconds(row.created_at),
        state=ProcessingState(row.state),
        due_at=from_milliseconds(row.due_at),
        reason=row.reason,
    )


def _step_to_row(key: str, step: StepRecord) -> dict[str, object]:
    return {
        "processing_id": key,
        "rule_number": step.rule_number,
        "action_number": step.action_number,
        "rule": step.rule,
        "action": step.action,
        "outcome": step.outcome.value,
        "disposition": step.disposition.value,
        "attempts": step.attempts,
        "first_at": to_milliseconds(step.first_at),
        "last_at": to_milliseconds(step.last_at),
        "due_at": to_milliseconds(step.due_at),
        "milliseconds": step.milliseconds,
        "result": without_nul(step.result),
        "broken": step.broken,
    }


def _step_from_row(row: Any) -> StepRecord:
    return StepRecord(
        rule_number=row.rule_number,
        action_number=row.action_number,
        rule=row.rule,
        action=row.action,
        outcome=StepOutcome(row.outcome),
        disposition=Disposition(row.disposition),
        attempts=row.attempts,
        first_at=from_milliseconds(row.first_at),
        last_at=from_milliseconds(row.last_at),
        due_at=from_milliseconds(row.due_at),
        milliseconds=row.milliseconds,
        result=row.result,
        broken=row.broken,
    )
