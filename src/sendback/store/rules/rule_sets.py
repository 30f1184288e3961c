"""Rule sets, their versions, and which one is active.

The rules of a set are one document, stored under its hash and never changed: changing a rule
creates a new version, and a message names the version by which it is processed. A version that no
set names any more is kept for a day, for mail that was accepted under it and is still being
received.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.receipt.model import Rules
from sendback.receipt.shapes import rules_from_json, rules_to_json
from sendback.store.engine.errors import (
    AlreadyExistsError,
    InUseError,
    LimitReachedError,
    NotFoundError,
)
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.locking import insert_into, lock_account
from sendback.store.engine.sweeping import MAX_ROWS, Budget, SweepStep, Swept, behind_key
from sendback.store.engine.tables import (
    accounts,
    identities,
    processing,
    rule_set_versions,
    rule_sets,
)
from sendback.store.identities.identities import VerificationStatus


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A rule set with its rules. `version` is the hash of the rules."""

    name: str
    created_at: datetime
    version: str
    rules: Rules


_COST = 40

_RECEIVERS = HotStatement(
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
class FindActiveVersions:
    """Return the accounts that have verified one of the names, in order of their IDs.

    Each is (account ID, name of its active rule set, version of its rules); the last two are None
    without an active rule set.
    """

    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Sequence[tuple[str, str | None, str | None]]:
        rows = _RECEIVERS.rows(connection, {"names": self.names})
        return sorted(((row[0], row[1], row[2]) for row in rows), key=lambda row: row[0])


@dataclass(frozen=True, slots=True)
class LoadRules:
    """Return the rules of a version, or None when the version does not exist."""

    version: str

    def __call__(self, connection: Connection, /) -> Rules | None:
        query = select(rule_set_versions.c.rules).where(rule_set_versions.c.version == self.version)
        found = connection.execute(query).scalar()
        return None if found is None else rules_from_json(found)


@dataclass(frozen=True, slots=True)
class FindRuleSet:
    """Return the account's rule set of that name, or None."""

    account_id: str
    name: str

    def __call__(self, connection: Connection, /) -> RuleSet | None:
        return find_rule_set(connection, self.account_id, self.name)


@dataclass(frozen=True, slots=True)
class FindActiveRuleSet:
    """Return the account's active rule set, or None."""

    account_id: str

    def __call__(self, connection: Connection, /) -> RuleSet | None:
        name = active_name(connection, self.account_id)
        return None if name is None else find_rule_set(connection, self.account_id, name)


@dataclass(frozen=True, slots=True)
class ListRuleSets:
    """Return (name, creation date) of up to `limit` rule sets after `after`, oldest first.

    `after` is the creation date and the name of the last one of the page before.
    """

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
    """Add a rule set: without rules, or with those of the set `copy_of`.

    Raises, checked in this order: `AlreadyExistsError`, `LimitReachedError` when the account has
    `limit` rule sets, and `NotFoundError` when there is no set to copy.
    """

    account_id: str
    name: str
    now: datetime
    limit: int
    copy_of: str | None = None

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.account_id)
        if find_rule_set(connection, self.account_id, self.name) is not None:
            raise AlreadyExistsError("rule set", self.name)
        if count_rule_sets(connection, self.account_id) >= self.limit:
            raise LimitReachedError("rule sets of an account", self.limit)
        _insert(connection, self.account_id, self.name, self._rules(connection), self.now)

    def _rules(self, connection: Connection) -> Rules:
        if self.copy_of is None:
            return ()
        return _existing(connection, self.account_id, self.copy_of).rules


@dataclass(frozen=True, slots=True)
class ChangeRules:
    """Replace a set's rules by what `change` returns for them.

    Raises `NotFoundError` when the set does not exist, and what `change` raises.
    """

    account_id: str
    name: str
    change: Callable[[Rules], Rules]
    now: datetime

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.account_id)
        found = _existing(connection, self.account_id, self.name)
        new = rules_to_json(self.change(found.rules))
        old = rules_to_json(found.rules)
        version = _version(new)
        _keep(connection, {found.version: old, version: new}, self.now)
        where = (rule_sets.c.account_id == self.account_id, rule_sets.c.name == self.name)
        values = {"version": version}
        connection.execute(update(rule_sets).where(*where).values(values))


@dataclass(frozen=True, slots=True)
class DeleteRuleSet:
    """Delete a rule set; return whether it existed. Raise `InUseError` when it is active."""

    account_id: str
    name: str
    now: datetime

    def __call__(self, connection: Connection, /) -> bool:
        lock_account(connection, self.account_id)
        if active_name(connection, self.account_id) == self.name:
            raise InUseError(f"rule set {self.name} is active")
        where = (rule_sets.c.account_id == self.account_id, rule_sets.c.name == self.name)
        return bool(_delete(connection, where, self.now))


@dataclass(frozen=True, slots=True)
class PutRuleSet:
    """Create the set with these rules, or replace its rules.

    Returns `created` or `changed`, or None when it already has these rules.
    """

    account_id: str
    name: str
    now: datetime
    rules: Rules

    def __call__(self, connection: Connection, /) -> str | None:
        lock_account(connection, self.account_id)
        found = find_rule_set(connection, self.account_id, self.name)
        if found is None:
            _insert(connection, self.account_id, self.name, self.rules, self.now)
            return "created"
        if found.rules == self.rules:
            return None
        ChangeRules(self.account_id, self.name, lambda _: self.rules, self.now)(connection)
        return "changed"


@dataclass(frozen=True, slots=True)
class ActivateRuleSet:
    """Make the set the active one; with None, deactivate the active one.

    Returns whether that changed anything. Raises `NotFoundError` when the set does not exist.
    """

    account_id: str
    name: str | None

    def __call__(self, connection: Connection, /) -> bool:
        lock_account(connection, self.account_id)
        if self.name is not None:
            _existing(connection, self.account_id, self.name)
        changed = active_name(connection, self.account_id) != self.name
        where = accounts.c.account_id == self.account_id
        connection.execute(update(accounts).where(where).values(active_rule_set=self.name))
        return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetVersions(SweepStep):
    """Delete versions that no message and no rule set names, and no set named since `before`."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        version = rule_set_versions.c.version
        unnamed = [
            ~select(column).where(column == version).exists()
            for column in (rule_sets.c.version, processing.c.version)
        ]
        # `kept_at` is stored after the large rules, so it is read of few rows only.
        query = (
            select(version, and_(*unnamed).label("unnamed"))
            .where(*(version > name for name in self.after))
            .order_by(version)
            .limit(MAX_ROWS)
        )
        rows = connection.execute(query).all()
        looked_at = Budget[Any]().take(rows, lambda row: (0, row.unnamed * _COST)).chosen
        old = [row.version for row in looked_at if row.unnamed]
        is_old = rule_set_versions.c.kept_at < to_milliseconds(self.before)
        where = (version.in_(old), is_old)
        count = connection.execute(delete(rule_set_versions).where(*where)).rowcount
        return Swept(count, behind_key(looked_at, len(rows), "version"))


def prune_rule_sets(
    connection: Connection, account_id: str, kept: Sequence[str], now: datetime
) -> list[str]:
    """Delete the account's rule sets that are not in `kept`, and return their names."""
    lock_account(connection, account_id)
    where = (rule_sets.c.account_id == account_id, rule_sets.c.name.not_in(kept))
    names = _delete(connection, where, now)
    if active_name(connection, account_id) in names:
        ActivateRuleSet(account_id, None)(connection)
    return names


def _delete(connection: Connection, where: tuple[Any, ...], now: datetime) -> list[str]:
    """Delete rule sets and return their names; their versions are kept for a day."""
    found = connection.execute(
        select(rule_sets.c.name, rule_sets.c.version, rule_set_versions.c.rules)
        .join(rule_set_versions, rule_set_versions.c.version == rule_sets.c.version)
        .where(*where)
    ).all()
    _keep(connection, {row.version: row.rules for row in found}, now)
    connection.execute(delete(rule_sets).where(*where))
    return [row.name for row in found]


def _insert(
    connection: Connection, account_id: str, name: str, rules: Rules, now: datetime
) -> None:
    text = rules_to_json(rules)
    _keep(connection, {_version(text): text}, now)
    values = {
        "account_id": account_id,
        "name": name,
        "created_at": to_milliseconds(now),
        "version": _version(text),
    }
    connection.execute(insert(rule_sets), values)


def _existing(connection: Connection, account_id: str, name: str) -> RuleSet:
    found = find_rule_set(connection, account_id, name)
    if found is None:
        raise NotFoundError("rule set", name)
    return found


def find_rule_set(connection: Connection, account_id: str, name: str) -> RuleSet | None:
    """Return the account's rule set of that name, or None."""
    query = (
        select(rule_sets, rule_set_versions.c.rules)
        .join(rule_set_versions, rule_set_versions.c.version == rule_sets.c.version)
        .where(rule_sets.c.account_id == account_id, rule_sets.c.name == name)
    )
    row = connection.execute(query).first()
    return _from_row(row) if row else None


def count_rule_sets(connection: Connection, account_id: str) -> int:
    """Return how many rule sets the account has."""
    count = select(func.count()).where(rule_sets.c.account_id == account_id)
    found: int = connection.execute(count).scalar_one()
    return found


def active_name(connection: Connection, account_id: str) -> str | None:
    """Return the name of the account's active rule set, or None."""
    query = select(accounts.c.active_rule_set).where(accounts.c.account_id == account_id)
    name: str | None = connection.execute(query).scalar()
    return name


def keep_versions(connection: Connection, versions: Mapping[str, Rules], now: datetime) -> None:
    """Restore those versions that were deleted, for messages that name them.

    A message is processed by the rules that were active at RCPT, and these may be deleted before
    its DATA ends. Costs one lookup by key a version.
    """
    gone = {
        version: rules_to_json(rules)
        for version, rules in versions.items()
        if not _HAS_VERSION.rows(connection, {"wanted": version})
    }
    if gone:
        _keep(connection, gone, now)


def _keep(connection: Connection, versions: Mapping[str, str], now: datetime) -> None:
    """Record that the versions are or were named until now; add those that do not exist.

    In order of the versions, which accounts may share. `ForgetVersions` waits for these rows, and
    then finds their new dates.
    """
    rows = [
        {"version": version, "rules": versions[version], "kept_at": to_milliseconds(now)}
        for version in sorted(versions)
    ]
    if not rows:
        return
    statement = insert_into(connection, rule_set_versions)
    kept = {"kept_at": statement.excluded.kept_at}
    connection.execute(statement.on_conflict_do_update(index_elements=["version"], set_=kept), rows)


def _version(rules: str) -> str:
    return hashlib.sha256(rules.encode()).hexdigest()


_HAS_VERSION = HotStatement(
    select(rule_set_versions.c.version).where(rule_set_versions.c.version == bindparam("wanted"))
)


def _from_row(row: Any) -> RuleSet:
    return RuleSet(
        name=row.name,
        created_at=from_milliseconds(row.created_at),
        version=row.version,
        rules=rules_from_json(row.rules),
    )
