"""IP filters of accounts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from sendback.receipt.filters import FilterPolicy, IpFilter
from sendback.store.engine.errors import AlreadyExistsError, LimitReachedError
from sendback.store.engine.locking import lock_account
from sendback.store.engine.tables import accounts, ip_filters


@dataclass(frozen=True, slots=True)
class AddFilter:
    """Add a filter. Raises `AlreadyExistsError`, or `LimitReachedError` at `limit` filters."""

    account_id: str
    entry: IpFilter
    limit: int

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.account_id)
        existing = list_filters(connection, self.account_id)
        if any(entry.name == self.entry.name for entry in existing):
            raise AlreadyExistsError("filter", self.entry.name)
        if len(existing) >= self.limit:
            raise LimitReachedError("filters of an account", self.limit)
        _insert(connection, self.account_id, [self.entry])


@dataclass(frozen=True, slots=True)
class DeleteFilter:
    """Delete a filter; return whether it existed."""

    account_id: str
    name: str

    def __call__(self, connection: Connection, /) -> bool:
        lock_account(connection, self.account_id)
        where = (ip_filters.c.account_id == self.account_id, ip_filters.c.name == self.name)
        return connection.execute(delete(ip_filters).where(*where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class ListFilters:
    """Return the account's filters, in order of name."""

    account_id: str

    def __call__(self, connection: Connection, /) -> Sequence[IpFilter]:
        return list_filters(connection, self.account_id)


@dataclass(frozen=True, slots=True)
class AllFilters:
    """Return the filters of every account by its ID, empty for an account without any."""

    def __call__(self, connection: Connection, /) -> Mapping[str, tuple[IpFilter, ...]]:
        query = select(accounts.c.account_id, ip_filters).outerjoin(
            ip_filters, ip_filters.c.account_id == accounts.c.account_id
        )
        found: dict[str, list[IpFilter]] = {}
        for row in connection.execute(query):
            entries = found.setdefault(row[0], [])
            if row.name is not None:
                entries.append(_from_row(row))
        return {account: tuple(entries) for account, entries in found.items()}


def put_filters(
    connection: Connection,
    account_id: str,
    wanted: Sequence[IpFilter],
    *,
    prune: bool,
    limit: int,
) -> bool:
    """Add or overwrite filters; with `prune`, delete all others. Return whether any changed.

    Raises `LimitReachedError` if there would be more than `limit`.
    """
    lock_account(connection, account_id)
    existing = {entry.name: entry for entry in list_filters(connection, account_id)}
    given = {entry.name: entry for entry in wanted}
    new = given if prune else {**existing, **given}
    if new == existing:
        return False
    if len(new) > limit:
        raise LimitReachedError("filters of an account", limit)
    connection.execute(delete(ip_filters).where(ip_filters.c.account_id == account_id))
    _insert(connection, account_id, list(new.values()))
    return True


def list_filters(connection: Connection, account_id: str) -> list[IpFilter]:
    """Return the account's filters, in order of name."""
    query = (
        select(ip_filters).where(ip_filters.c.account_id == account_id).order_by(ip_filters.c.name)
    )
    return [_from_row(row) for row in connection.execute(query)]


def _insert(connection: Connection, account_id: str, entries: Sequence[IpFilter]) -> None:
    rows = [
        {
            "account_id": account_id,
            "name": entry.name,
            "policy": entry.policy.value,
            "cidr": entry.cidr,
        }
        for entry in entries
    ]
    if rows:
        connection.execute(insert(ip_filters), rows)


def _from_row(row: Any) -> IpFilter:
    return IpFilter(row.name, FilterPolicy(row.policy), row.cidr)
