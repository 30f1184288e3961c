"""The outbox: a durable queue of what is to be delivered.

How leases work: `leasing`. Which rows are looked at for taking: `destinations`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.destinations import (
    add_destinations,
    begin_probe,
    block,
    find_due,
    recover,
    touch,
)
from sendback.store.leasing import LeaseQueue
from sendback.store.outbox_rows import IS_QUEUED, find_whole, from_row, to_content_row, to_row
from sendback.store.tables import attempts, outbox, outbox_contents
from sendback.store.transactions import BatchUnit
from sendback.store.values import Attempt, Block, Lease, OutboxMessage, OutboxState

_FINISHED = [
    state.value for state in OutboxState if state not in {OutboxState.QUEUED, OutboxState.HELD}
]
_QUEUE = LeaseQueue(outbox, outbox.c.message_id)
_SWEPT = 1000

_MARK = (
    update(outbox)
    .where(outbox.c.message_id == bindparam("message"))
    .values(
        state=bindparam("new_state"),
        due_at=bindparam("new_due"),
        attempts=bindparam("number"),
        last_reply=bindparam("reply"),
        lease_owner=None,
    )
)
_PUT_BACK = (
    update(outbox)
    .where(outbox.c.message_id == bindparam("message"))
    .values(due_at=bindparam("new_due"), lease_owner=None)
)
_TAKE = (
    update(outbox)
    .where(
        outbox.c.message_id.in_(
            select(outbox.c.message_id)
            .where(
                outbox.c.domain == bindparam("of_domain"),
                IS_QUEUED,
                outbox.c.due_at <= bindparam("now"),
            )
            .order_by(outbox.c.due_at)
            .limit(bindparam("most"))
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
    )
    .values(
        due_at=bindparam("until"),
        lease_owner=bindparam("owner"),
        lease_token=outbox.c.lease_token + 1,
    )
    .returning(outbox.c.message_id)
)


def add_to_outbox(connection: Connection, messages: Sequence[OutboxMessage]) -> None:
    """Queues new messages, due at once: for the transaction that decides to send them."""
    if not messages:
        return
    rows = [to_row(message) for message in messages]
    connection.execute(insert(outbox), rows)
    connection.execute(insert(outbox_contents), [to_content_row(message) for message in messages])
    domains = {str(row["domain"]) for row in rows}
    due_at = min(message.due_at or message.created_at for message in messages)
    add_destinations(connection, domains, due_at)


@dataclass(frozen=True, slots=True)
class TakeLeases:
    """Takes up to `limit` due rows for `owner` until `until`, destination by destination.

    `rooms` says how many of a domain may be taken at most, `room` for all others; up to `probes`
    messages go to domains that had failed, one each.
    """

    owner: str
    now: datetime
    until: datetime
    limit: int
    room: int
    probes: int
    rooms: Mapping[str, int]

    def __call__(self, connection: Connection, /) -> Sequence[Lease]:
        full = [domain for domain, room in self.rooms.items() if room <= 0]
        failures: dict[str, int] = {}  # of each message's domain
        for due in find_due(connection, self.now, self.limit, self.probes, full):
            left = self.limit - len(failures)
            if left <= 0:
                break
            room = 1 if due.failures else min(left, self.rooms.get(due.domain, self.room))
            taken = self._take(connection, due.domain, room)
            failures |= dict.fromkeys(taken, due.failures)
            if due.failures and taken:
                begin_probe(connection, due.domain, self.until)
            touch(connection, [due.domain], self.now)
        rows = find_whole(connection, failures) if failures else {}
        return [
            Lease(from_row(rows[key]), rows[key].lease_token, count)
            for key, count in failures.items()
        ]

    def _take(self, connection: Connection, domain: str, most: int) -> list[str]:
        values = {
            "of_domain": domain,
            "now": to_milliseconds(self.now),
            "until": to_milliseconds(self.until),
            "owner": self.owner,
            "most": most,
        }
        return list(connection.execute(_TAKE, values).scalars())


@dataclass(frozen=True, slots=True)
class RenewLeases:
    """Keeps what `owner` holds of `message_ids` until `until`."""

    owner: str
    message_ids: tuple[str, ...]
    until: datetime

    def __call__(self, connection: Connection, /) -> None:
        _QUEUE.renew(connection, self.owner, self.message_ids, self.until)


@dataclass(frozen=True, slots=True)
class PutBack(BatchUnit[None]):
    """Gives back a row that was not tried, due then."""

    lease: Lease
    due_at: datetime

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[None]:
        held = _still_held(connection, [unit.lease for unit in units])
        rows = [
            {"message": unit.lease.message.message_id, "new_due": to_milliseconds(unit.due_at)}
            for unit, is_held in zip(units, held, strict=True)
            if is_held
        ]
        if rows:
            connection.execute(_PUT_BACK, rows)
        touch(connection, {unit.lease.message.domain for unit in units})
        return [None] * len(units)


@dataclass(frozen=True, slots=True)
class RecordAttempt(BatchUnit[bool]):
    """Writes an attempt down and moves the row on. Answers False when the lease had passed.

    With `block`, its destination has failed; without, one that had failed answers again.
    """

    lease: Lease
    attempt: Attempt
    state: OutboxState
    due_at: datetime
    block: Block | None = None

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[bool]:
        held = _still_held(connection, [unit.lease for unit in units])
        written = [unit for unit, is_held in zip(units, held, strict=True) if is_held]
        if written:
            connection.execute(_MARK, [unit._mark() for unit in written])  # noqa: SLF001
            connection.execute(insert(attempts), [unit._row() for unit in written])  # noqa: SLF001
        _judge_destinations(connection, written)
        return held

    @property
    def domain(self) -> str:
        return self.lease.message.domain

    def _mark(self) -> dict[str, object]:
        return {
            "message": self.lease.message.message_id,
            "new_state": self.state.value,
            "new_due": to_milliseconds(self.due_at),
            "number": self.lease.message.attempts + 1,
            "reply": self.attempt.reply,
        }

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
            "tls_policy": self.attempt.tls_policy,
        }


def _still_held(connection: Connection, leases: Sequence[Lease]) -> list[bool]:
    """Whether each lease is still the row's last one: not taken over, held back or cancelled."""
    query = (
        select(outbox.c.message_id, outbox.c.lease_token)
        .where(outbox.c.message_id.in_([lease.message.message_id for lease in leases]), IS_QUEUED)
        .with_for_update()
    )
    tokens = {row.message_id: row.lease_token for row in connection.execute(query)}
    return [tokens.get(lease.message.message_id) == lease.token for lease in leases]


def _judge_destinations(connection: Connection, units: Sequence[RecordAttempt]) -> None:
    blocks = {unit.domain: (unit.block, unit.attempt.started_at) for unit in units if unit.block}
    for domain, (what, now) in blocks.items():
        block(connection, domain, what, now)
    back = {unit.domain for unit in units if unit.lease.failures} - blocks.keys()
    if back:
        recover(connection, back, max(unit.attempt.started_at for unit in units))
    again = {unit.domain for unit in units if unit.state is OutboxState.QUEUED}
    touch(connection, again | back | blocks.keys())


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
        where = (
            outbox.c.state.in_(_FINISHED),
            outbox.c.created_at < to_milliseconds(self.before),
        )
        return connection.execute(delete(outbox).where(*where)).rowcount


@dataclass(frozen=True, slots=True)
class ExpireWaiting:
    """Ends what waits for a destination that never came back: up to a thousand; answers how many.

    What a worker holds is judged by the worker.
    """

    now: datetime

    def __call__(self, connection: Connection, /) -> int:
        overdue = (
            select(outbox.c.message_id)
            .where(
                IS_QUEUED,
                outbox.c.expires_at < to_milliseconds(self.now),
                outbox.c.lease_owner.is_(None),
            )
            .limit(_SWEPT)
        )
        where: Any = outbox.c.message_id.in_(overdue.scalar_subquery())
        values = {"state": OutboxState.EXPIRED.value}
        return connection.execute(update(outbox).where(where).values(values)).rowcount


_INTEGER = outbox.c.attempts.type
