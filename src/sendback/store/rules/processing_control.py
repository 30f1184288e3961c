"""The operator's control of the processing of messages by rules: retry and drop.

The messages are selected in a read transaction, so that no writer waits however many there are;
each write changes up to a thousand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from sendback.clock import to_milliseconds
from sendback.receipt.plan import StepOutcome
from sendback.store.engine.tables import processing, steps
from sendback.store.engine.wakeups import Subject, wake
from sendback.store.rules.processing import ProcessingState, processing_id

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class ChooseProcessing:
    """Return the IDs of messages of an account in one of the states, after the ID `after`.

    Up to a thousand, in order. With `message_ids`, only those.
    """

    account_id: str
    states: tuple[ProcessingState, ...]
    message_ids: tuple[str, ...] = ()
    after: str = ""

    def __call__(self, connection: Connection, /) -> Sequence[str]:
        query = (
            select(processing.c.message_id)
            .where(
                processing.c.account_id == self.account_id,
                processing.c.state.in_([state.value for state in self.states]),
                processing.c.message_id > self.after,
            )
            .order_by(processing.c.message_id)
            .limit(_CHUNK)
        )
        if self.message_ids:
            query = query.where(processing.c.message_id.in_(self.message_ids))
        return list(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class RetryProcessing:
    """Requeue held messages, due now, with the full retry time of each step; return how many."""

    account_id: str
    message_ids: tuple[str, ...]
    now: datetime

    def __call__(self, connection: Connection, /) -> int:
        is_held = processing.c.state == ProcessingState.HELD.value
        now = to_milliseconds(self.now)
        values = {"state": ProcessingState.QUEUED.value, "due_at": now, "tries": 0, "reason": None}
        keys = _change(connection, self.account_id, self.message_ids, is_held, values)
        waits = steps.c.outcome == StepOutcome.RETRY.value
        again = {"due_at": now, "first_at": now, "broken": 0}
        where = (steps.c.processing_id.in_(keys), waits)
        connection.execute(update(steps).where(*where).values(again))
        wake(connection, Subject.PROCESSING)
        return len(keys)


@dataclass(frozen=True, slots=True)
class DropProcessing:
    """End the processing of messages that are held, or queued and not leased; return how many.

    The remaining steps of their rules are not run.
    """

    account_id: str
    message_ids: tuple[str, ...]
    now: datetime
    reason: str

    def __call__(self, connection: Connection, /) -> int:
        columns = processing.c
        # A lease that has ended does not count.
        is_free = columns.lease_owner.is_(None) | (columns.due_at <= to_milliseconds(self.now))
        waits = (columns.state == ProcessingState.QUEUED.value) & is_free
        may_go = waits | (columns.state == ProcessingState.HELD.value)
        values = {"state": ProcessingState.DROPPED.value, "reason": self.reason}
        return len(_change(connection, self.account_id, self.message_ids, may_go, values))


def _change(
    connection: Connection,
    account_id: str,
    message_ids: Sequence[str],
    condition: Any,
    values: dict[str, Any],
) -> list[str]:
    """Change the rows that match the condition; return their keys."""
    # A row that is being leased is waited for, and then it does not match any more.
    query = (
        select(processing.c.processing_id)
        .where(
            processing.c.processing_id.in_([processing_id(m, account_id) for m in message_ids]),
            condition,
        )
        .order_by(processing.c.processing_id)
        .with_for_update()
    )
    keys = list(connection.execute(query).scalars())
    # The new token fences off a worker whose lease ended before this change.
    fenced = {**values, "lease_owner": None, "lease_token": processing.c.lease_token + 1}
    chosen = processing.c.processing_id.in_(keys)
    connection.execute(update(processing).where(chosen).values(fenced))
    return keys
