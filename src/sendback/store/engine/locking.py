"""Locks of rows and of names, rows that are added or replaced in one statement, and lock order.

Theory of operation. On SQLite a write transaction has the database's write lock, so a unit may
read and then write. On PostgreSQL (READ COMMITTED) two nodes may both read before either writes.
There a unit first locks what it is about to decide on, in a statement of its own: a statement sees
what was committed before it began, so only the next one sees what the wait for the lock brought.

All transactions take their locks in the order that docs/architecture.md has under "Locks". A
deadlock is still no error, because the store runs the units again; it costs a second.

- Rows that are swept are locked without waiting, and their condition is checked again.
- A unit that changes the configuration of an account locks the account's row first
  (`lock_account`). `FOR NO KEY UPDATE` leaves receiving alone, whose foreign keys need the row.
- Units whose type has a `place` share a transaction, in the order of their places. Any other unit
  has a transaction of its own on PostgreSQL (`transactions_of`).
- What a unit does to destinations is collected, and done at the end of the group in order of
  their names (`end_of_group`): they are rows that many units want, so they are locked briefly.

On SQLite all of these functions cost nothing.
"""

import hashlib
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any, Protocol, TypeVar

from sqlalchemy import Column, Connection, Engine, Table, func, select

from sendback.store.engine.tables import accounts

_COLLECTED = "sendback_end_of_group"


class Place(IntEnum):
    """The place of a type of units in the order in which a group takes its locks."""

    CALLS = 1  # calls of SendBounce, then accounts
    RECEIVING = 2  # versions of rule sets
    PROCESSING = 3
    OUTBOX = 4
    TAKING = 5  # rows of the outbox that are not locked


class EndOfGroup(Protocol):
    """What the units of a group do together at its end."""

    def settle(self, connection: Connection, /) -> None: ...


J = TypeVar("J")
E = TypeVar("E", bound=EndOfGroup)


def has_row_locks(bind: Connection | Engine) -> bool:
    """Return whether write transactions run at the same time, and lock rows."""
    return bind.dialect.name == "postgresql"


def place_of(unit: object) -> Place | None:
    """Return the place of the unit's type, or None if it runs alone."""
    found: Place | None = getattr(type(unit), "place", None)
    return found


def transactions_of(jobs: Iterable[tuple[object, J]]) -> list[list[J]]:
    """Return what runs in each transaction, of (unit, job) pairs, where rows are locked.

    Units with a place are first: their callers are clients that wait.
    """
    together: list[J] = []
    alone: list[list[J]] = []
    for unit, job in jobs:
        if place_of(unit) is None:
            alone.append([job])
        else:
            together.append(job)
    return [together, *alone] if together else alone


@contextmanager
def group(connection: Connection) -> Generator[None, None, None]:
    """Collect what the units leave for the end of their group, and do it."""
    collected: dict[type[EndOfGroup], EndOfGroup] = {}
    info = connection.info  # not reachable any more once the connection is lost
    info[_COLLECTED] = collected
    try:
        yield
        for work in collected.values():
            work.settle(connection)
    finally:
        del info[_COLLECTED]


@contextmanager
def end_of_group(connection: Connection, kind: type[E]) -> Generator[E, None, None]:
    """Yield what the group does at its end, to be added to; outside of a group, do it now."""
    collected: dict[type[E], E] | None = connection.info.get(_COLLECTED)
    if collected is not None:
        yield collected.setdefault(kind, kind())
    else:
        alone = kind()
        yield alone
        alone.settle(connection)


def lock_account(connection: Connection, account_id: str) -> None:
    """Make the changes of an account's configuration serial, until the transaction ends."""
    lock_accounts(connection, (account_id,))


def lock_accounts(connection: Connection, account_ids: Collection[str]) -> None:
    """Lock accounts as `lock_account` does, in order."""
    lock_rows(connection, accounts.c.account_id, account_ids)


def lock_name(connection: Connection, name: str) -> None:
    """Make the transactions serial that lock this name."""
    if has_row_locks(connection):
        connection.execute(select(func.pg_advisory_xact_lock(_number(name))))


def try_lock_name(connection: Connection, name: str) -> bool:
    """Lock the name until the transaction ends; return False if another transaction has it."""
    if not has_row_locks(connection):
        return True
    found: bool = connection.execute(
        select(func.pg_try_advisory_xact_lock(_number(name)))
    ).scalar_one()
    return found


def lock_rows(connection: Connection, key: Column[Any], keys: Collection[Any]) -> None:
    """Lock the rows with these keys, in order; rows that others lock are waited for."""
    if has_row_locks(connection) and keys:
        query = select(key).where(key.in_(keys)).order_by(key).with_for_update(key_share=True)
        connection.execute(query).all()


def lock_free(
    connection: Connection, key: Column[Any], keys: Sequence[Any], *where: Any
) -> Sequence[Any]:
    """Lock those rows that match `where` now and are not locked; return their keys.

    For sweeps, which chose the rows in an earlier statement. On SQLite, returns `keys`.
    """
    if not has_row_locks(connection) or not keys:
        return keys
    query = select(key).where(key.in_(keys), *where).with_for_update(skip_locked=True)
    return connection.execute(query).scalars().all()


def add_missing(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *returned: Column[Any]
) -> Sequence[Any]:
    """Insert rows but those whose key exists; return `returned` of the inserted ones.

    A row with the same key that another transaction has just inserted is waited for.
    """
    statement = insert_into(connection, table).on_conflict_do_nothing()
    return connection.execute(statement.returning(*returned), rows).all()


def put_row(
    connection: Connection,
    table: Table,
    key: Mapping[str, Any],
    values: Mapping[str, Any],
    first: Mapping[str, Any] | None = None,
) -> None:
    """Insert a row with `values` and `first`, or set `values` in the one with this primary key."""
    statement = insert_into(connection, table).values({**key, **values, **(first or {})})
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=dict(values)))


def insert_into(connection: Connection, table: Table) -> Any:
    """Return the dialect's INSERT, which knows ON CONFLICT."""
    if has_row_locks(connection):
        from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - 0.2 s where SQLite is used

        return postgresql.insert(table)
    from sqlalchemy.dialects import sqlite  # noqa: PLC0415

    return sqlite.insert(table)


def _number(name: str) -> int:
    """Return the key of an advisory lock: 63 bits of the name's hash, the same in all processes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1
