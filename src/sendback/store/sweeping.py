"""Sweeping in steps: what all units that delete old rows have in common.

A sweep never deletes without bound in one write transaction: other processes could not write
meanwhile, and their clients would be refused. Each unit deletes some hundred rows, or a few
megabytes, and says where the next one begins; between them the writer is free.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Self, TypeVar

from sqlalchemy import Column, Connection, Table, delete, select, tuple_

MAX_ROWS = 500
MAX_OCTETS = 4 * 2**20
# Of rows that belong to a row and go with it: steps, attempts.
MAX_BELONGINGS = 2000

Cursor = tuple[Any, ...]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a step did: how many rows it changed, and where the next begins (None: nowhere).

    `blobs` are names that no row has any more: to be removed once the step is committed.
    """

    count: int = 0
    after: Cursor | None = None
    blobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepStep:
    """A unit of work that sweeps a part of a table, behind the row with the key `after`."""

    after: Cursor = field(default=())

    def __call__(self, connection: Connection, /) -> Swept:
        raise NotImplementedError

    def behind(self, *columns: Any) -> list[Any]:
        """The condition that a row comes behind `after` in the order of these columns."""
        return [tuple_(*columns) > tuple_(*self.after)] if self.after else []


@dataclass(slots=True)
class Budget(Generic[R]):
    """The rows that fit into one step: a few, at least one, by what they weigh."""

    chosen: list[R] = field(default_factory=list)
    octets: int = 0
    belongings: int = 0

    def take(self, rows: Sequence[R], weigh: Callable[[R], tuple[int, int]]) -> Self:
        """Take rows in order for as long as they fit; `weigh` returns octets and belongings."""
        for row in rows:
            octets, belongings = weigh(row)
            self.octets += octets
            self.belongings += belongings
            is_full = self.octets > MAX_OCTETS or self.belongings > MAX_BELONGINGS
            if self.chosen and is_full:
                break
            self.chosen.append(row)
        return self


def next_cursor(looked_at: Sequence[Any], found: int, columns: Sequence[str]) -> Cursor | None:
    """Where the next step begins: behind the last row of `looked_at`, of `found` that there were.

    None when these were all and fewer than a step may look at.
    """
    if not looked_at or (len(looked_at) == found and found < MAX_ROWS):
        return None
    return tuple(getattr(looked_at[-1], name) for name in columns)


def delete_some(
    connection: Connection, table: Table, key: Sequence[Column[Any]], *where: Any
) -> Swept:
    """Delete up to `MAX_ROWS` rows for which the conditions hold. They must have an index."""
    columns = tuple_(*key)
    chosen = select(*key).where(*where).limit(MAX_ROWS)
    count = connection.execute(delete(table).where(columns.in_(chosen))).rowcount
    return Swept(count, () if count == MAX_ROWS else None)
