"""Targets: what the buckets, topics, functions and mailboxes of rules are mapped to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, or_, select

from sendback.store.engine.locking import lock_account
from sendback.store.engine.tables import targets


@dataclass(frozen=True, slots=True)
class FindTarget:
    """Return the target of the name, or None."""

    account_id: str
    kind: str
    name: str

    def __call__(self, connection: Connection, /) -> str | None:
        query = select(targets.c.target).where(
            targets.c.account_id == self.account_id,
            targets.c.kind == self.kind,
            targets.c.name == self.name,
        )
        found: str | None = connection.execute(query).scalar()
        return found


@dataclass(frozen=True, slots=True)
class ListTargets:
    """Return all of the account's targets, by (kind, name)."""

    account_id: str

    def __call__(self, connection: Connection, /) -> Mapping[tuple[str, str], str]:
        query = (
            select(targets)
            .where(targets.c.account_id == self.account_id)
            .order_by(targets.c.kind, targets.c.name)
        )
        return {(row.kind, row.name): row.target for row in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class FindTargetsWith:
    """Return up to `limit` (kind, name, target) of all accounts whose target has such a prefix."""

    prefixes: tuple[str, ...]
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[tuple[str, str, str]]:
        begins = (targets.c.target.startswith(prefix) for prefix in self.prefixes)
        query = (
            select(targets.c.kind, targets.c.name, targets.c.target)
            .where(or_(*begins))
            .order_by(targets.c.account_id, targets.c.kind, targets.c.name)
            .limit(self.limit)
        )
        return [(row.kind, row.name, row.target) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class PutTargets:
    """Add or overwrite targets, by (kind, name)."""

    account_id: str
    targets: Mapping[tuple[str, str], str]

    def __call__(self, connection: Connection, /) -> None:
        put_targets(connection, self.account_id, self.targets, prune=False)


@dataclass(frozen=True, slots=True)
class DeleteTarget:
    """Delete a target, if there is one."""

    account_id: str
    kind: str
    name: str

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.account_id)
        connection.execute(
            delete(targets).where(
                targets.c.account_id == self.account_id,
                targets.c.kind == self.kind,
                targets.c.name == self.name,
            )
        )


def put_targets(
    connection: Connection,
    account_id: str,
    wanted: Mapping[tuple[str, str], str],
    *,
    prune: bool,
) -> bool:
    """Add or overwrite targets; with `prune`, delete all others. Return whether any changed."""
    lock_account(connection, account_id)
    existing = ListTargets(account_id)(connection)
    changed = {key: target for key, target in wanted.items() if existing.get(key) != target}
    gone = existing.keys() - wanted.keys() if prune else set()
    old = [key for key in changed if key in existing]
    for kind, name in (*sorted(gone), *old):
        where = (
            targets.c.account_id == account_id,
            targets.c.kind == kind,
            targets.c.name == name,
        )
        connection.execute(delete(targets).where(*where))
    rows = [
        {"account_id": account_id, "kind": kind, "name": name, "target": target}
        for (kind, name), target in changed.items()
    ]
    if rows:
        connection.execute(insert(targets), rows)
    return bool(changed or gone)
