"""DKIM keys of domains; the private ones are sealed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, select, update

from sendback.clock import (
    from_milliseconds,
    from_optional_milliseconds,
    to_milliseconds,
    to_optional_milliseconds,
)
from sendback.store.engine.sweeping import SweepStep, Swept, delete_some
from sendback.store.engine.tables import dkim_keys


class DkimKeyState(StrEnum):
    """Signs; is published and will sign; signed until a while ago."""

    ACTIVE = "active"
    STANDBY = "standby"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A domain's DKIM key (RFC 6376): `algorithm` and `public_key` are its k= and p= tags."""

    account_id: str
    domain: str
    selector: str
    algorithm: str
    state: DkimKeyState
    sealed_key: bytes | None
    public_key: str
    created_at: datetime
    seen_at: datetime | None = None
    retired_at: datetime | None = None

    @property
    def record_name(self) -> str:
        """Where its record is (RFC 6376 §3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class FindDkimKeys:
    """The account's keys of these domains: of each the active, the retired, the standby ones."""

    account_id: str
    domains: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Sequence[DkimKey]:
        return find_dkim_keys(connection, self.account_id, self.domains)


@dataclass(frozen=True, slots=True)
class MarkSeen:
    """When these selectors of a domain were in DNS."""

    account_id: str
    domain: str
    selectors: Collection[str]
    seen_at: datetime

    def __call__(self, connection: Connection, /) -> None:
        where = (
            *_of_domain(self.account_id, self.domain),
            dkim_keys.c.selector.in_(self.selectors),
        )
        values = {"seen_at": to_milliseconds(self.seen_at)}
        connection.execute(update(dkim_keys).where(*where).values(values))


def add_dkim_keys(connection: Connection, keys: Sequence[DkimKey]) -> None:
    """For the transaction that decides to have them."""
    rows = [
        {
            "account_id": key.account_id,
            "domain": key.domain,
            "selector": key.selector,
            "algorithm": key.algorithm,
            "state": key.state.value,
            "sealed_key": key.sealed_key,
            "public_key": key.public_key,
            "created_at": to_milliseconds(key.created_at),
            "seen_at": to_optional_milliseconds(key.seen_at),
        }
        for key in keys
    ]
    if rows:
        connection.execute(insert(dkim_keys), rows)


def find_dkim_keys(
    connection: Connection, account_id: str, domains: Sequence[str]
) -> list[DkimKey]:
    """For units of other modules."""
    query = (
        select(dkim_keys)
        .where(dkim_keys.c.account_id == account_id, dkim_keys.c.domain.in_(domains))
        .order_by(
            dkim_keys.c.domain, dkim_keys.c.state, dkim_keys.c.created_at, dkim_keys.c.selector
        )
    )
    return [_from_row(row) for row in connection.execute(query)]


def set_dkim_state(
    connection: Connection, key: DkimKey, state: DkimKeyState, now: datetime
) -> None:
    """A retired key forgets its private half."""
    values: dict[str, object] = {"state": state.value}
    if state is DkimKeyState.RETIRED:
        values |= {"sealed_key": None, "retired_at": to_milliseconds(now)}
    where = (*_of_domain(key.account_id, key.domain), dkim_keys.c.selector == key.selector)
    connection.execute(update(dkim_keys).where(*where).values(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetRetiredKeys(SweepStep):
    """Delete keys that had retired by then."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        columns = dkim_keys.c
        key = (columns.account_id, columns.domain, columns.selector)
        is_old = columns.retired_at < to_milliseconds(self.before)
        return delete_some(connection, dkim_keys, key, columns.retired_at.is_not(None), is_old)


def _of_domain(account_id: str, domain: str) -> tuple[Any, ...]:
    return dkim_keys.c.account_id == account_id, dkim_keys.c.domain == domain


def _from_row(row: Any) -> DkimKey:
    return DkimKey(
        account_id=row.account_id,
        domain=row.domain,
        selector=row.selector,
        algorithm=row.algorithm,
        state=DkimKeyState(row.state),
        sealed_key=row.sealed_key,
        public_key=row.public_key,
        created_at=from_milliseconds(row.created_at),
        seen_at=from_optional_milliseconds(row.seen_at),
        retired_at=from_optional_milliseconds(row.retired_at),
    )
