"""Rule sets, their versions, which one is active.

The rules of a set are one document, kept by its hash and never changed: writing a rule makes a new
version, and a message names the version by which it is processed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.receipt.model import Rules
from sendback.receipt.shapes import rules_from_json, rules_to_json
from sendback.store.tables import (
    accounts,
    identities,
    processing,
    rule_set_versions,
    rule_sets,
)
from sendback.store.values import RuleSet, VerificationStatus

_RECEIVERS = (
    select(identities.c.account_id, accounts.c.active_rule_set, rule_sets.c.version)
    .join(accounts, accounts.c.account_id == identities.c.account_id)
    .outerjoin(
        rule_sets,
        (rule_sets.c.account_id == accounts.c.account_id)
        & (rule_sets.c.name == accounts.c.active_rule_set),
    )
    .where(
        identities.c.identity.in_(bindparam("names", expanding=True)),
        identities.c.status == VerificationStatus.SUCCESS.value,
    )
    .distinct()
)


@dataclass(frozen=True, slots=True)
class Receiver:
    """An account that mail is for, its active rule set and that set's version, if any."""

    account_id: str
    rule_set: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class FindReceivers:
    """The accounts that have one of the names verified: whose mail it is."""

    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> tuple[Receiver, ...]:
        rows = connection.execute(_RECEIVERS, {"names": self.names})
        return tuple(sorted((Receiver(*row) for row in rows), key=lambda r: r.account_id))


@dataclass(frozen=True, slots=True)
class LoadRules:
    """The rules of a version; it must exist."""

    version: str

    def __call__(self, connection: Connection, /) -> Rules:
        query = select(rule_set_versions.c.rules).where(rule_set_versions.c.version == self.version)
        return rules_from_json(connection.execute(query).scalar_one())


@dataclass(frozen=True, slots=True)
class FindRuleSet:
    """The account's rule set of that name, or None."""

    account_id: str
    name: str

    def __call__(self, connection: Connection, /) -> RuleSet | None:
        return find_rule_set(connection, self.account_id, self.name)


@dataclass(frozen=True, slots=True)
class FindActiveRuleSet:
    """The account's active rule set, or None."""

    account_id: str

    def __call__(self, connection: Connection, /) -> RuleSet | None:
        name = active_name(connection, self.account_id)
        return None if name is None else find_rule_set(connection, self.account_id, name)


@dataclass(frozen=True, slots=True)
class ListRuleSets:
    """(name, creation date) in order of creation, after `after`."""

    account_id: str
    after: tuple[datetime, str] | None
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[tuple[str, datetime]]:
        query = (
            select(rule_sets.c.name, rule_sets.c.created_at)
            .where(rule_sets.c.account_id == self.account_id)
            .order_by(rule_sets.c.created_at, rule_sets.c.name)
            .limit(self.limit)
        )
        if self.after:
            created, name = to_milliseconds(self.after[0]), self.after[1]
            query = query.where(
                (rule_sets.c.created_at > created)
                | ((rule_sets.c.created_at == created) & (rule_sets.c.name > name))
            )
        return [(name, from_milliseconds(made)) for name, made in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class AddRuleSet:
    """Adds a rule set; `allow` may refuse by raising, given whether it exists and how many do."""

    account_id: str
    name: str
    now: datetime
    rules: Callable[[Connection], Rules]
    allow: Callable[[bool, int], None]

    def __call__(self, connection: Connection, /) -> None:
        count = connection.execute(
            select(func.count()).where(rule_sets.c.account_id == self.account_id)
        ).scalar_one()
        exists = find_rule_set(connection, self.account_id, self.name) is not None
        self.allow(exists, count)
        values = {
            "account_id": self.account_id,
            "name": self.name,
            "created_at": to_milliseconds(self.now),
            "version": _keep_version(connection, self.rules(connection)),
        }
        connection.execute(insert(rule_sets), values)


@dataclass(frozen=True, slots=True)
class ChangeRules:
    """Replaces a set's rules by what `change` makes of them; `change` may refuse by raising.

    `change` is given None when there is no such set.
    """

    account_id: str
    name: str
    change: Callable[[Rules | None], Rules]

    def __call__(self, connection: Connection, /) -> None:
        found = find_rule_set(connection, self.account_id, self.name)
        new = self.change(found.rules if found else None)
        where = (rule_sets.c.account_id == self.account_id, rule_sets.c.name == self.name)
        values = {"version": _keep_version(connection, new)}
        connection.execute(update(rule_sets).where(*where).values(values))


@dataclass(frozen=True, slots=True)
class DeleteRuleSet:
    """Answers False, and deletes nothing, when the set is active."""

    account_id: str
    name: str

    def __call__(self, connection: Connection, /) -> bool:
        if active_name(connection, self.account_id) == self.name:
            return False
        where = (rule_sets.c.account_id == self.account_id, rule_sets.c.name == self.name)
        connection.execute(delete(rule_sets).where(*where))
        return True


@dataclass(frozen=True, slots=True)
class PutRuleSet:
    """Makes the set with these rules, or gives it these; answers `created`, `changed` or None."""

    account_id: str
    name: str
    now: datetime
    rules: Rules

    def __call__(self, connection: Connection, /) -> str | None:
        found = find_rule_set(connection, self.account_id, self.name)
        if found is None:
            add = AddRuleSet(
                self.account_id, self.name, self.now, lambda _: self.rules, lambda _e, _c: None
            )
            add(connection)
            return "created"
        if found.rules == self.rules:
            return None
        ChangeRules(self.account_id, self.name, lambda _: self.rules)(connection)
        return "changed"


@dataclass(frozen=True, slots=True)
class ActivateRuleSet:
    """Makes the set the active one, none with None.

    Answers whether that changed anything, or None when there is no such set.
    """

    account_id: str
    name: str | None

    def __call__(self, connection: Connection, /) -> bool | None:
        if self.name is not None and not find_rule_set(connection, self.account_id, self.name):
            return None
        changed = active_name(connection, self.account_id) != self.name
        where = accounts.c.account_id == self.account_id
        connection.execute(update(accounts).where(where).values(active_rule_set=self.name))
        return changed


@dataclass(frozen=True, slots=True)
class ForgetVersions:
    """Deletes the versions that neither a rule set nor a message names."""

    def __call__(self, connection: Connection, /) -> None:
        version = rule_set_versions.c.version
        unused = (
            version.not_in(select(rule_sets.c.version)),
            version.not_in(select(processing.c.version)),
        )
        connection.execute(delete(rule_set_versions).where(*unused))


def prune_rule_sets(connection: Connection, account_id: str, kept: Sequence[str]) -> list[str]:
    """Deletes the account's other sets, active or not; answers their names."""
    where = (rule_sets.c.account_id == account_id, rule_sets.c.name.not_in(kept))
    names = list(connection.execute(select(rule_sets.c.name).where(*where)).scalars())
    connection.execute(delete(rule_sets).where(*where))
    if active_name(connection, account_id) in names:
        ActivateRuleSet(account_id, None)(connection)
    return names


def find_rule_set(connection: Connection, account_id: str, name: str) -> RuleSet | None:
    """For units of other modules."""
    query = (
        select(rule_sets, rule_set_versions.c.rules)
        .join(rule_set_versions, rule_set_versions.c.version == rule_sets.c.version)
        .where(rule_sets.c.account_id == account_id, rule_sets.c.name == name)
    )
    row = connection.execute(query).first()
    return _from_row(row) if row else None


def active_name(connection: Connection, account_id: str) -> str | None:
    """The name of the account's active rule set."""
    query = select(accounts.c.active_rule_set).where(accounts.c.account_id == account_id)
    name: str | None = connection.execute(query).scalar()
    return name


def _keep_version(connection: Connection, rules: Rules) -> str:
    text = rules_to_json(rules)
    version = hashlib.sha256(text.encode()).hexdigest()
    known = select(rule_set_versions.c.version).where(rule_set_versions.c.version == version)
    if connection.execute(known).first() is None:
        connection.execute(insert(rule_set_versions), {"version": version, "rules": text})
    return version


def _from_row(row: Any) -> RuleSet:
    return RuleSet(
        name=row.name,
        created_at=from_milliseconds(row.created_at),
        version=row.version,
        rules=rules_from_json(row.rules),
    )
