"""Durable queues: rows that workers claim for a time.

Theory of operation. A row is waiting while its state is `queued`; a worker may take it once
`due_at` has come. Taking it (a lease) moves `due_at` to the lease's end and raises
`lease_token`, in one atomic UPDATE. Whoever marks a row must name the token that it was given:
a worker that wakes after its lease has passed to another finds its token stale, and marks nothing.
A worker that lives renews its leases; one that was killed leaves rows that fall due by themselves.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Table, select, update

from sendback.clock import to_milliseconds

QUEUED = "queued"


@dataclass(frozen=True, slots=True)
class LeaseQueue:
    """A table with `state`, `due_at`, `lease_owner`, `lease_token`, and its key column."""

    table: Table
    key: Column[str]

    def take(
        self, connection: Connection, owner: str, now: datetime, until: datetime, limit: int
    ) -> Sequence[Any]:
        """Up to `limit` due rows, now `owner`'s until `until`; the longest due come first."""
        columns = self.table.c
        due = (
            select(self.key)
            .where(columns.state == QUEUED, columns.due_at <= to_milliseconds(now))
            .order_by(columns.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        take = (
            update(self.table)
            .where(self.key.in_(due.scalar_subquery()))
            .values(
                due_at=to_milliseconds(until),
                lease_owner=owner,
                lease_token=columns.lease_token + 1,
            )
            .returning(self.table)
        )
        return connection.execute(take).all()

    def renew(
        self, connection: Connection, owner: str, keys: Collection[str], until: datetime
    ) -> None:
        """Keeps what `owner` holds of `keys` until `until`."""
        where = (*self._held(owner), self.key.in_(keys))
        values = {"due_at": to_milliseconds(until)}
        connection.execute(update(self.table).where(*where).values(values))

    def release(self, connection: Connection, owner: str, now: datetime) -> int:
        """Gives back what `owner` holds and has not worked off; answers how many."""
        values = {"due_at": to_milliseconds(now), "lease_owner": None}
        where = self._held(owner)
        return connection.execute(update(self.table).where(*where).values(values)).rowcount

    def _held(self, owner: str) -> tuple[Any, Any]:
        return self.table.c.lease_owner == owner, self.table.c.state == QUEUED
