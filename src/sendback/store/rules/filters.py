"""IP filters of accounts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from sendback.receipt.filters import FilterPolicy, IpFilter
from sendback.store.engine.tables import accounts, ip_filters


@dataclass(frozen=True, slots=True)
class AddFilter:
    """Adds a filter; `allow` may refuse by raising, given whether it exists and how many do."""

    account_id: str
    entry: IpFilter
    allow: Callable[[bool, int], None]

    def __call__(self, connection: Connection, /) -> None:
        existing = list_filters(connection, self.account_id)
        self.allow(any(entry.name == self.entry.name for entry in existing), len(existing))
        values = {
            "account_id": self.account_id,
            "name": self.entry.name,
            "policy": self.entry.policy.value,
            "cidr": self.entry.cidr,
        }
        connection.execute(insert(ip_filters), values)


@dataclass(frozen=True, slots=True)
class DeleteFilter:
    """Deleting what is not there succeeds."""

    account_id: str
    name: str

    def __call__(self, connection: Connection, /) -> None:
        where = (ip_filters.c.account_id == self.account_id, ip_filters.c.name == self.name)
        connection.execute(delete(ip_filters).where(*where))


@dataclass(frozen=True, slots=True)
class ListFilters:
    """The account's filters, by name."""

    account_id: str

    def __call__(self, connection: Connection, /) -> Sequence[IpFilter]:
        return list_filters(connection, self.account_id)


@dataclass(frozen=True, slots=True)
class AllFilters:
    """Every account's filters; an account without any is there with none."""

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
    connection: Connection, account_id: str, wanted: Sequence[IpFilter], *, prune: bool
) -> bool:
    """Adds and overwrites; with `prune`, others go. Answers whether anything changed."""
    existing = {entry.name: entry for entry in list_filters(connection, account_id)}
    given = {entry.name: entry for entry in wanted}
    new = given if prune else {**existing, **given}
    if new == existing:
        return False
    connection.execute(delete(ip_filters).where(ip_filters.c.account_id == account_id))
    for entry in new.values():
        AddFilter(account_id, entry, lambda _exists, _count: None)(connection)
    return True


def list_filters(connection: Connection, account_id: str) -> list[IpFilter]:
    """By name, for units of other modules."""
    query = (
        select(ip_filters).where(ip_filters.c.account_id == account_id).order_by(ip_filters.c.name)
    )
    return [_from_row(row) for row in connection.execute(query)]


def _from_row(row: Any) -> IpFilter:
    return IpFilter(row.name, FilterPolicy(row.policy), row.cidr)
