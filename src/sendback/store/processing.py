"""The processing of received messages by their rules: a durable queue, and what was done.

How leases work: `leasing`. A row is made in the transaction that makes the message durable.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.receipt.model import Disposition
from sendback.receipt.plan import StepOutcome
from sendback.store.leasing import QUEUED, LeaseQueue
from sendback.store.outbox import add_to_outbox
from sendback.store.tables import processing, steps
from sendback.store.transactions import BatchUnit
from sendback.store.values import OutboxMessage, Processing, ProcessingState, StepRecord

_QUEUE = LeaseQueue(processing, processing.c.processing_id)
_DONE = ProcessingState.DONE.value
_MARK = (
    update(processing)
    .where(
        processing.c.processing_id == bindparam("key"),
        processing.c.lease_token == bindparam("token"),
        processing.c.state == QUEUED,
    )
    .values(
        state=bindparam("new_state"),
        due_at=bindparam("new_due"),
        verdicts=bindparam("new_verdicts"),
        lease_owner=bindparam("new_owner"),
    )
)
_KEY = (
    steps.c.processing_id == bindparam("key"),
    steps.c.rule_number == bindparam("rule_at"),
    steps.c.action_number == bindparam("action_at"),
)


@dataclass(frozen=True, slots=True)
class ProcessingLease:
    """A worker's claim on a message's processing, and what has been done so far."""

    processing: Processing
    token: int
    steps: tuple[StepRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class TakeProcessing:
    """Takes up to `limit` due rows for `owner` until `until`; the longest due come first."""

    owner: str
    now: datetime
    until: datetime
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[ProcessingLease]:
        rows = _QUEUE.take(connection, self.owner, self.now, self.until, self.limit)
        done = _steps_of(connection, [row.processing_id for row in rows])
        return [
            ProcessingLease(_from_row(row), row.lease_token, tuple(done.get(row.processing_id, ())))
            for row in rows
        ]


@dataclass(frozen=True, slots=True)
class RenewProcessing:
    """Keeps what `owner` holds of `keys` until `until`."""

    owner: str
    keys: tuple[str, ...]
    until: datetime

    def __call__(self, connection: Connection, /) -> None:
        _QUEUE.renew(connection, self.owner, self.keys, self.until)


@dataclass(frozen=True, slots=True)
class ReleaseProcessing:
    """Gives back what `owner` holds: a clean shutdown loses no time."""

    owner: str
    now: datetime

    def __call__(self, connection: Connection, /) -> int:
        return _QUEUE.release(connection, self.owner, self.now)


@dataclass(frozen=True, slots=True)
class RecordProgress(BatchUnit[bool]):
    """Writes steps down, with the bounces that they sent. Answers False when the lease had passed.

    `keep`: the worker goes on, its lease ending at `due_at`; else the row is given back, due then.
    """

    lease: ProcessingLease
    owner: str
    steps: tuple[StepRecord, ...]
    bounces: tuple[OutboxMessage, ...]
    verdicts: str | None
    state: ProcessingState
    due_at: datetime
    keep: bool

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[bool]:
        marked = [unit._mark(connection) for unit in units]  # noqa: SLF001 - its own class
        written = [unit for unit, ok in zip(units, marked, strict=True) if ok]
        add_to_outbox(connection, [bounce for unit in written for bounce in unit.bounces])
        records = [
            (unit.lease.processing.processing_id, step) for unit in written for step in unit.steps
        ]
        new = [_step_to_row(key, step) for key, step in records if step.attempts == 1]
        if new:
            connection.execute(insert(steps), new)
        for key, step in records:
            if step.attempts > 1:
                where = {"key": key, "rule_at": step.rule_number, "action_at": step.action_number}
                row = _step_to_row(key, step)
                connection.execute(update(steps).where(*_KEY).values(row), where)
        return marked

    def _mark(self, connection: Connection) -> bool:
        values = {
            "key": self.lease.processing.processing_id,
            "token": self.lease.token,
            "new_state": self.state.value,
            "new_due": to_milliseconds(self.due_at),
            "new_verdicts": self.verdicts,
            "new_owner": self.owner if self.keep else None,
        }
        return connection.execute(_MARK, values).rowcount == 1


@dataclass(frozen=True, slots=True)
class FindProcessing:
    """How the message's processing stands, and its steps in order; None when there is none."""

    account_id: str
    message_id: str

    def __call__(self, connection: Connection, /) -> tuple[Processing, Sequence[StepRecord]] | None:
        key = processing_id(self.message_id, self.account_id)
        query = select(processing).where(processing.c.processing_id == key)
        row = connection.execute(query).first()
        if row is None:
            return None
        return _from_row(row), _steps_of(connection, [key]).get(key, [])


@dataclass(frozen=True, slots=True)
class ForgetProcessed:
    """Deletes what was finished and is older; answers how many."""

    before: datetime

    def __call__(self, connection: Connection, /) -> int:
        where = (
            processing.c.state == _DONE,
            processing.c.created_at < to_milliseconds(self.before),
        )
        return connection.execute(delete(processing).where(*where)).rowcount


def processing_id(message_id: str, account_id: str) -> str:
    """The key of a message's processing for one account."""
    return f"{message_id}/{account_id}"


def add_processing(connection: Connection, rows: Sequence[tuple[Processing, str | None]]) -> None:
    """Queues, in the transaction that keeps the messages; with an owner it is leased already."""
    if rows:
        connection.execute(insert(processing), [_to_row(*row) for row in rows])


def is_being_processed(message_id: Any, account_id: Any) -> Any:
    """As a condition: whether the message's rules have not come to their end."""
    return (
        select(processing.c.processing_id)
        .where(
            processing.c.message_id == message_id,
            processing.c.account_id == account_id,
            processing.c.state == QUEUED,
        )
        .exists()
    )


def _steps_of(connection: Connection, keys: Sequence[str]) -> Mapping[str, list[StepRecord]]:
    if not keys:
        return {}
    query = (
        select(steps)
        .where(steps.c.processing_id.in_(keys))
        .order_by(steps.c.rule_number, steps.c.action_number)
    )
    found: dict[str, list[StepRecord]] = {}
    for row in connection.execute(query):
        found.setdefault(row.processing_id, []).append(_step_from_row(row))
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
        "result": step.result,
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
    )
