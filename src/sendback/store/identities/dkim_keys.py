"""The DKIM keys of domains, with sealed private keys."""

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
from sendback.store.engine.changes import UNWATCHED
from sendback.store.engine.errors import RefusedError
from sendback.store.engine.locking import lock_account
from sendback.store.engine.sweeping import SweepStep, Swept, delete_some
from sendback.store.engine.tables import dkim_keys
from sendback.store.identities.checks import CheckKind, find_checks
from sendback.store.identities.identities import VerificationStatus
from sendback.store.identities.settings import DEFAULTS, FindSettings


class DkimKeyState(StrEnum):
    """When the key signs: now (active), after the next rotation (standby), no longer (retired)."""

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
        """The name of the key's DNS record (RFC 6376 §3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class FindDkimKeys:
    """Return the account's keys of these domains: of each the active, retired, standby ones."""

    account_id: str
    domains: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Sequence[DkimKey]:
        return find_dkim_keys(connection, self.account_id, self.domains)


@dataclass(frozen=True, slots=True)
class MarkSeen:
    """Record when these selectors of a domain were seen in DNS."""

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
        statement = update(dkim_keys).where(*where).values(values)
        connection.execute(statement.execution_options(**UNWATCHED))


def add_dkim_keys(connection: Connection, keys: Sequence[DkimKey]) -> None:
    """Add keys to their domains."""
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
    """Return the account's keys of these domains: of each the active, retired, standby ones."""
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
    """Set the state of a key. Retiring it deletes its private key."""
    values: dict[str, object] = {"state": state.value}
    if state is DkimKeyState.RETIRED:
        values |= {"sealed_key": None, "retired_at": to_milliseconds(now)}
    where = (*_of_domain(key.account_id, key.domain), dkim_keys.c.selector == key.selector)
    connection.execute(update(dkim_keys).where(*where).values(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetRetiredKeys(SweepStep):
    """Delete keys that retired before `before`."""

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


class RotationError(RefusedError):
    """The keys cannot be rotated now; `str` says why."""


class KeysChangedError(RefusedError):
    """The domain's keys are not those for which new ones were made."""


def _states(keys: Sequence[DkimKey]) -> set[tuple[str, DkimKeyState]]:
    return {(key.selector, key.state) for key in keys}


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateDkimKeys:
    """Activate the oldest standby key of each algorithm, retire its active one, add `new_standby`.

    Return the domain's keys afterwards. With `must_be_seen`, only keys that have been seen in DNS
    are activated; raise `RotationError` if there is none. `new_standby` was made for the keys
    `known`: raise `KeysChangedError` if the domain has others.
    """

    account_id: str
    domain: str
    algorithms: tuple[str, ...]
    new_standby: tuple[DkimKey, ...]
    now: datetime
    must_be_seen: bool
    known: Sequence[DkimKey]

    def __call__(self, connection: Connection, /) -> Sequence[DkimKey]:
        lock_account(connection, self.account_id)
        keys = find_dkim_keys(connection, self.account_id, (self.domain,))
        if _states(keys) != _states(self.known):
            raise KeysChangedError(f"the keys of {self.domain} have changed meanwhile")
        for algorithm in self.algorithms:
            self._rotate(connection, keys, algorithm)
        add_dkim_keys(connection, self.new_standby)
        return find_dkim_keys(connection, self.account_id, (self.domain,))

    def _rotate(self, connection: Connection, keys: Sequence[DkimKey], algorithm: str) -> None:
        of_algorithm = [key for key in keys if key.algorithm == algorithm]
        standby = [key for key in of_algorithm if key.state is DkimKeyState.STANDBY]
        if not standby:
            return  # an algorithm that the domain did not have
        usable = [key for key in standby if key.seen_at is not None or not self.must_be_seen]
        if not usable:
            raise RotationError(
                f"the next key is not published yet: no record at {standby[0].record_name}"
            )
        for key in of_algorithm:
            if key.state is DkimKeyState.ACTIVE:
                set_dkim_state(connection, key, DkimKeyState.RETIRED, self.now)
        set_dkim_state(connection, usable[0], DkimKeyState.ACTIVE, self.now)


@dataclass(frozen=True, slots=True)
class FindSigningKeys:
    """Return the active keys that sign for an address of an account; empty if none does."""

    account_id: str
    address: str
    names: tuple[str, ...]  # the identities that cover the address, the most specific first

    def __call__(self, connection: Connection, /) -> Sequence[DkimKey]:
        domains = tuple(name for name in self.names if "@" not in name)
        active = [
            key
            for key in find_dkim_keys(connection, self.account_id, domains)
            if key.state is DkimKeyState.ACTIVE
        ]
        having = {key.domain for key in active}
        if not having:
            return []
        proved = {
            check.identity
            for check in find_checks(connection, self.account_id, tuple(having))
            if check.kind is CheckKind.DKIM and check.status is VerificationStatus.SUCCESS
        }
        settings = FindSettings(self.account_id, self.names)(connection)
        domain = next((name for name in domains if name in having & proved), None)
        if domain is None:
            return []
        own = settings.get(self.address, settings.get(domain, DEFAULTS))
        return [key for key in active if key.domain == domain] if own.dkim_enabled else []
