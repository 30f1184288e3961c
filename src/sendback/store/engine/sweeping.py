"""Sweeps in steps: what all units that delete old rows have in common.

The size of each write transaction is bounded: other processes cannot write meanwhile, and in a long
one their clients would be refused. A step deletes up to `MAX_ROWS` rows or `MAX_OCTETS`, and
returns where the next one begins; between the steps the writer is free.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from sqlalchemy import Column, Connection, Select, Table, delete, select, tuple_

from sendback.store.engine.locking import has_row_locks, try_lock_name

MAX_ROWS = 500
MAX_OCTETS = 4 * 2**20
# Rows that are deleted with the row to which they belong: steps, attempts.
MAX_BELONGINGS = 2000

Cursor = tuple[Any, ...]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Swept:
    """The result of a step: how many rows it changed, and where the next begins (None: the end).

    `blobs` are contents that no message has any more: to be removed once the step is committed.
    """

    count: int = 0
    after: Cursor | None = None
    blobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStep:
    """A unit of work that sweeps a part of a table, from the position `after`."""

    after: Cursor = field(default=())

    def __call__(self, connection: Connection, /) -> Swept:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SweepAlone:
    """Run a step unless another node is in the middle of one: then this node's sweep ends.

    Steps of two nodes would delete the same rows. The lease on sweeping (`AcquireLock`) normally
    prevents that, but a node that was suspended meanwhile does not know that its lease has ended.
    """

    step: SweepStep

    def __call__(self, connection: Connection, /) -> Swept:
        return self.step(connection) if try_lock_name(connection, "sweep") else Swept()


@dataclass(slots=True)
class Budget(Generic[R]):
    """The rows of one step, at least one, within its limits."""

    chosen: list[R] = field(default_factory=list)
    octets: int = 0
    belongings: int = 0

    def take(self, rows: Sequence[R], weigh: Callable[[R], tuple[int, int]]) -> Self:
        """Take rows in order until a limit is reached; `weigh` returns octets and belongings."""
        for row in rows:
            octets, belongings = weigh(row)
            self.octets += octets
            self.belongings += belongings
            is_full = self.octets > MAX_OCTETS or self.belongings > MAX_BELONGINGS
            if self.chosen and is_full:
                break
            self.chosen.append(row)
        return self


def in_order(
    connection: Connection, query: Select[Any], date: Column[int], key: Column[str], after: Cursor
) -> Select[Any]:
    """Return the query for the rows of this step, in order of a date that has an index.

    The rows that earlier steps swept no longer match, so only rows that stay have to be skipped.
    """
    # SQLite has rows of the same date in the order of its index; with a second column it would sort
    # them again in each step, and they may be many. PostgreSQL promises no order of them.
    by = (date, key) if has_row_locks(connection) else (date,)
    ordered = query.order_by(*by).limit(MAX_ROWS)
    if not after:
        return ordered
    since, stay = after
    return ordered.where(date >= since).offset(stay)


def behind(
    looked_at: Sequence[Any], found: int, date: str, after: Cursor, stays: Callable[[Any], bool]
) -> Cursor | None:
    """Return where the step after the rows `looked_at` begins, or None when there are no more.

    That is the last date, and how many rows of that date stay. `found` is how many rows the query
    of `in_order` returned.
    """
    if len(looked_at) == found and found < MAX_ROWS:
        return None
    last = getattr(looked_at[-1], date)
    staying = sum(1 for row in looked_at if getattr(row, date) == last and stays(row))
    if after and after[0] == last:
        staying += after[1]
    return last, staying


def behind_key(rows: Sequence[Any], found: int, key: str) -> Cursor | None:
    """Return where the step after `rows` begins, for a table that is read in order of its key."""
    if not rows or (len(rows) == found and found < MAX_ROWS):
        return None
    return (getattr(rows[-1], key),)


def delete_some(
    connection: Connection, table: Table, key: Sequence[Column[Any]], *where: Any
) -> Swept:
    """Delete up to `MAX_ROWS` rows that match the conditions, which must have an index."""
    columns = tuple_(*key)
    chosen = select(*key).where(*where).limit(MAX_ROWS).with_for_update(skip_locked=True)
    count = connection.execute(delete(table).where(columns.in_(chosen))).rowcount
    return Swept(count, () if count == MAX_ROWS else None)
