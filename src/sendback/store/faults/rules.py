"""The rows of fault rules.

The counters are written in the transaction that decides on an event, before it takes effect: after
a crash a rule may have counted an event that no client saw, but never the reverse.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.faults.model import FaultRule
from sendback.faults.rules import parse_fault
from sendback.store.engine.changes import UNWATCHED
from sendback.store.engine.errors import AlreadyExistsError, LimitReachedError, NotFoundError
from sendback.store.engine.locking import lock_name
from sendback.store.engine.tables import faults

MAX_FAULTS = 100
_LOCK = "faults"  # they belong to no account


@dataclass(frozen=True, slots=True)
class StoredFault:
    """A rule, when it was added, the number of events that it matched and that it made fail."""

    rule: FaultRule
    created_at: datetime
    matched: int = 0
    injected: int = 0


@dataclass(frozen=True, slots=True)
class AddFault:
    """Add a rule as the last one, with a name if it has none.

    Raises `AlreadyExistsError`, `LimitReachedError`.
    """

    rule: FaultRule
    now: datetime

    def __call__(self, connection: Connection, /) -> StoredFault:
        rule = self.rule
        lock_name(connection, _LOCK)
        name = rule.name or _free_name(connection)
        if connection.execute(select(faults.c.name).where(faults.c.name == name)).first():
            raise AlreadyExistsError("fault", name)
        if _count(connection) >= MAX_FAULTS:
            raise LimitReachedError("faults", MAX_FAULTS)
        named = replace(rule, name=name)
        _insert(connection, named, self.now)
        return StoredFault(named, self.now)


@dataclass(frozen=True, slots=True)
class RemoveFault:
    """Remove a rule. Raises `NotFoundError`."""

    name: str

    def __call__(self, connection: Connection, /) -> None:
        if not connection.execute(delete(faults).where(faults.c.name == self.name)).rowcount:
            raise NotFoundError("fault", self.name)


@dataclass(frozen=True, slots=True)
class ClearFaults:
    """Remove all rules; return how many there were."""

    def __call__(self, connection: Connection, /) -> int:
        return connection.execute(delete(faults)).rowcount


@dataclass(frozen=True, slots=True)
class ReplaceFaults:
    """Put rules in the place of those with these names. Raises `LimitReachedError`."""

    names: frozenset[str]
    rules: tuple[FaultRule, ...]
    now: datetime

    def __call__(self, connection: Connection, /) -> None:
        lock_name(connection, _LOCK)
        unwanted = self.names - {rule.name for rule in self.rules}
        connection.execute(delete(faults).where(faults.c.name.in_(unwanted)))
        put_faults(connection, self.rules, self.now, prune=False)


@dataclass(frozen=True, slots=True)
class ListFaults:
    """Return the rules in the order in which they are tried."""

    def __call__(self, connection: Connection, /) -> Sequence[StoredFault]:
        return list_faults(connection)


@dataclass(frozen=True, slots=True)
class CountEvent:
    """Count an event for each of these rules, which it matches; return the one that takes effect.

    That is the first that is due; the counters of a rule that has been removed are gone.
    """

    rules: tuple[FaultRule, ...]

    def __call__(self, connection: Connection, /) -> FaultRule | None:
        due = [rule for rule in self.rules if _count_match(connection, rule)]
        if not due:
            return None
        _increment(connection, due[0], "injected")
        return due[0]


def _count_match(connection: Connection, rule: FaultRule) -> bool:
    """Count an event for a rule; return whether the rule is due."""
    number = _increment(connection, rule, "matched")
    return number is not None and rule.is_due(number)


def _increment(connection: Connection, rule: FaultRule, counter: str) -> int | None:
    """Return the new value, or None if the rule has been removed."""
    column = faults.c[counter]
    statement = update(faults).where(faults.c.name == rule.name).values({counter: column + 1})
    found = connection.execute(statement.returning(column), execution_options=UNWATCHED).scalar()
    return None if found is None else int(found)


def put_faults(
    connection: Connection, rules: Sequence[FaultRule], now: datetime, *, prune: bool
) -> Sequence[str]:
    """Add or replace rules by name; with `prune`, remove all others. Return a line for each change.

    A rule that is the same keeps its counters and its place. Raises `LimitReachedError`.
    """
    lock_name(connection, _LOCK)
    existing = {stored.rule.name: stored.rule for stored in list_faults(connection)}
    changes = []
    if prune:
        for name in sorted(existing.keys() - {rule.name for rule in rules}):
            RemoveFault(name)(connection)
            changes.append(f"fault {name} is removed")
    for rule in rules:
        before = existing.get(rule.name)
        if before == rule:
            continue
        if before is not None:
            RemoveFault(rule.name)(connection)
        _insert(connection, rule, now)
        changes.append(f"fault {rule.name} is {'replaced' if before else 'added'}")
    if _count(connection) > MAX_FAULTS:
        raise LimitReachedError("faults", MAX_FAULTS)
    return changes


def list_faults(connection: Connection) -> list[StoredFault]:
    """Return the rules in the order in which they are tried."""
    query = select(faults).order_by(faults.c.fault_id)
    return [_from_row(row) for row in connection.execute(query)]


def _free_name(connection: Connection) -> str:
    names = set(connection.execute(select(faults.c.name)).scalars())
    numbered = (f"fault-{number}" for number in range(1, MAX_FAULTS + 2))
    return next(name for name in numbered if name not in names)


def _count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(faults)).scalar_one())


def _insert(connection: Connection, rule: FaultRule, now: datetime) -> None:
    row = {
        "name": rule.name,
        "definition": json.dumps(rule.to_json()),
        "created_at": to_milliseconds(now),
        "matched": 0,
        "injected": 0,
    }
    connection.execute(insert(faults).values(row))


def _from_row(row: Any) -> StoredFault:
    rule = parse_fault(json.loads(row.definition))
    return StoredFault(rule, from_milliseconds(row.created_at), row.matched, row.injected)
