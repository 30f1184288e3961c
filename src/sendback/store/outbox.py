"""The outbox: a durable queue of what is to be delivered.

How leases work: `leasing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.leasing import LeaseQueue
from sendback.store.tables import attempts, outbox
from sendback.store.transactions import BatchUnit
from sendback.store.values import Attempt, Lease, OutboxMessage, OutboxState, Outcome

_QUEUED = OutboxState.QUEUED.value
_QUEUE = LeaseQueue(outbox, outbox.c.message_id)
_MARK = (
    update(outbox)
    .where(
        outbox.c.message_id == bindparam("message"),
        outbox.c.lease_token == bindparam("token"),
        outbox.c.state == _QUEUED,
    )
    .values(
        state=bindparam("new_state"),
        due_at=bindparam("new_due"),
        attempts=bindparam("number"),
        last_reply=bindparam("reply"),
        lease_owner=None,
    )
)


def add_to_outbox(connection: Connection, messages: Sequence[OutboxMessage]) -> None:
    """Queues new messages, due at once: for the transaction that decides to send them."""
    if messages:
        connection.execute(insert(outbox), [_to_row(message) for message in messages])


@dataclass(frozen=True, slots=True)
class TakeLeases:
    """Takes up to `limit` due rows for `owner` until `until`; the longest due come first."""

    owner: str
    now: datetime
    until: datetime
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[Lease]:
        rows = _QUEUE.take(connection, self.owner, self.now, self.until, self.limit)
        return [Lease(_from_row(row), row.lease_token) for row in rows]


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Keeps what `owner` holds of `message_ids` until `until`."""

    owner: str
    message_ids: tuple[str, ...]
    until: datetime

    def __call__(self, connection: Connection, /) -> None:
        _QUEUE.renew(connection, self.owner, self.message_ids, self.until)


@dataclass(frozen=True, slots=True)
class ReleaseLeases:
    """Gives back what `owner` holds and has not tried: a clean shutdown loses no time."""

    owner: str
    now: datetime

    def __call__(self, connection: Connection, /) -> int:
        return _QUEUE.release(connection, self.owner, self.now)


@dataclass(frozen=True, slots=True)
class RecordAttempt(BatchUnit[bool]):
    """Writes an attempt down and moves the row on. Answers False when the lease had passed."""

    lease: Lease
    attempt: Attempt
    state: OutboxState
    due_at: datetime

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[bool]:
        marked = [unit._mark(connection) for unit in units]  # noqa: SLF001 - its own class
        rows = [unit._row() for unit, ok in zip(units, marked, strict=True) if ok]  # noqa: SLF001
        if rows:
            connection.execute(insert(attempts), rows)
        return marked

    def _mark(self, connection: Connection) -> bool:
        values = {
            "message": self.lease.message.message_id,
            "token": self.lease.token,
            "new_state": self.state.value,
            "new_due": to_milliseconds(self.due_at),
            "number": self.lease.message.attempts + 1,
            "reply": self.attempt.reply,
        }
        return connection.execute(_MARK, values).rowcount == 1

    def _row(self) -> dict[str, object]:
        return {
            "message_id": self.lease.message.message_id,
            "number": self.lease.message.attempts + 1,
            "started_at": to_milliseconds(self.attempt.started_at),
            "milliseconds": self.attempt.milliseconds,
            "outcome": self.attempt.outcome.value,
            "peer": self.attempt.peer,
            "tls": self.attempt.tls,
            "reply": self.attempt.reply,
        }


@dataclass(frozen=True, slots=True)
class ListOutbox:
    """The newest first, of one state or of all."""

    account_id: str
    state: OutboxState | None
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[OutboxMessage]:
        query = (
            select(outbox)
            .where(outbox.c.account_id == self.account_id)
            .order_by(outbox.c.created_at.desc(), outbox.c.message_id.desc())
            .limit(self.limit)
        )
        if self.state:
            query = query.where(outbox.c.state == self.state.value)
        return [_from_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class ShowOutbox:
    """One message and its attempts in order, or None."""

    account_id: str
    message_id: str

    def __call__(self, connection: Connection, /) -> tuple[OutboxMessage, Sequence[Attempt]] | None:
        query = select(outbox).where(
            outbox.c.message_id == self.message_id, outbox.c.account_id == self.account_id
        )
        row = connection.execute(query).first()
        if row is None:
            return None
        tried = (
            select(attempts)
            .where(attempts.c.message_id == self.message_id)
            .order_by(attempts.c.number)
        )
        return _from_row(row), [_attempt(item) for item in connection.execute(tried)]


@dataclass(frozen=True, slots=True)
class Requeue:
    """Makes a message due now, with a new date to give it up; answers its state before, or None.

    A captured or delivered one stays as it is: what was captured is never sent.
    """

    account_id: str
    message_id: str
    now: datetime
    expires_at: datetime

    def __call__(self, connection: Connection, /) -> OutboxState | None:
        state = _state(connection, self.account_id, self.message_id)
        if state in {None, OutboxState.CAPTURED, OutboxState.DELIVERED}:
            return state
        values = {
            "state": _QUEUED,
            "due_at": to_milliseconds(self.now),
            "expires_at": to_milliseconds(self.expires_at),
        }
        # One that a worker holds is being tried at this moment; to make it due would send it twice.
        free = (outbox.c.state != _QUEUED) | outbox.c.lease_owner.is_(None)
        where = (outbox.c.message_id == self.message_id, free)
        connection.execute(update(outbox).where(*where).values(values))
        return state


@dataclass(frozen=True, slots=True)
class Cancel:
    """Takes a queued message out of the queue; answers its state before, or None."""

    account_id: str
    message_id: str

    def __call__(self, connection: Connection, /) -> OutboxState | None:
        state = _state(connection, self.account_id, self.message_id)
        if state is OutboxState.QUEUED:
            where = outbox.c.message_id == self.message_id
            values = {"state": OutboxState.CANCELLED.value, "lease_owner": None}
            connection.execute(update(outbox).where(where).values(values))
        return state


@dataclass(frozen=True, slots=True)
class CountSince:
    """How many messages the account has sent since then."""

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
    """(start of the bucket, messages sent in it, refused for good among them), in order."""

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


@dataclass(frozen=True, slots=True)
class ForgetFinished:
    """Deletes what was finished and is older; answers how many."""

    before: datetime

    def __call__(self, connection: Connection, /) -> int:
        where = (outbox.c.state != _QUEUED, outbox.c.created_at < to_milliseconds(self.before))
        return connection.execute(delete(outbox).where(*where)).rowcount


_INTEGER = outbox.c.attempts.type


def _state(connection: Connection, account_id: str, message_id: str) -> OutboxState | None:
    query = select(outbox.c.state).where(
        outbox.c.message_id == message_id, outbox.c.account_id == account_id
    )
    state = connection.execute(query).scalar()
    return OutboxState(state) if state is not None else None


def _to_row(message: OutboxMessage) -> dict[str, object]:
    return {
        "message_id": message.message_id,
        "account_id": message.account_id,
        "original_message_id": message.original_message_id,
        "recipient": message.recipient,
        "content": message.content,
        "fallback": message.fallback,
        "created_at": to_milliseconds(message.created_at),
        "expires_at": to_milliseconds(message.expires_at),
        "state": message.state.value,
        "due_at": to_milliseconds(message.due_at or message.created_at),
        "lease_token": 0,
        "attempts": 0,
    }


def _from_row(row: Any) -> OutboxMessage:
    return OutboxMessage(
        message_id=row.message_id,
        account_id=row.account_id,
        original_message_id=row.original_message_id,
        recipient=row.recipient,
        content=row.content,
        created_at=from_milliseconds(row.created_at),
        expires_at=from_milliseconds(row.expires_at),
        state=OutboxState(row.state),
        due_at=from_milliseconds(row.due_at),
        attempts=row.attempts,
        last_reply=row.last_reply,
        fallback=row.fallback,
    )


def _attempt(row: Any) -> Attempt:
    return Attempt(
        started_at=from_milliseconds(row.started_at),
        milliseconds=row.milliseconds,
        outcome=Outcome(row.outcome),
        peer=row.peer,
        tls=row.tls,
        reply=row.reply,
    )
