"""The changes of a setup file, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from sendback.faults.model import FaultRule
from sendback.mail.address import AddressError, parse_mailbox
from sendback.mail.covering import covering_names
from sendback.receipt.filters import IpFilter
from sendback.receipt.model import BounceAction, Rules
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.errors import LimitReachedError, RefusedError
from sendback.store.engine.locking import lock_account
from sendback.store.engine.transactions import Unit
from sendback.store.faults.rules import put_faults
from sendback.store.identities.identities import Identity, find_identities, find_verified
from sendback.store.rules.filters import put_filters
from sendback.store.rules.rule_sets import (
    ActivateRuleSet,
    PutRuleSet,
    active_name,
    count_rule_sets,
    find_rule_set,
    prune_rule_sets,
)
from sendback.store.rules.targets import put_targets


class SenderNotVerifiedError(RefusedError):
    """A rule's bounce action has a sender that the account has not verified."""

    def __init__(self, rule_set: str, rule: str, sender: str) -> None:
        super().__init__(f"rule {rule} of {rule_set}: the sender {sender} is not verified")
        self.rule_set = rule_set
        self.rule = rule
        self.sender = sender


@dataclass(frozen=True, slots=True)
class ActiveDeletion:
    """The active rule set is deleted; `successor` is the one that is active then, if any."""

    name: str
    successor: str | None


class ActiveDeletionError(RefusedError):
    """The active rule set would be deleted, which was not permitted."""

    def __init__(self, deletion: ActiveDeletion) -> None:
        super().__init__(f"rule set {deletion.name} is active")
        self.deletion = deletion


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the identities that the account did not have, and other changes, as lines.

    Faults are those of all accounts. `deletion` is that of the active rule set, if it is among the
    changes.
    """

    requested: tuple[Identity, ...]
    changes: tuple[str, ...]
    faults: tuple[str, ...]
    deletion: ActiveDeletion | None


class DryRunError(RefusedError):
    """The end of a dry run, which rolls it back: `written` is what would have been written."""

    def __init__(self, written: Written) -> None:
        super().__init__("a dry run")
        self.written = written


@dataclass(frozen=True, slots=True)
class WriteSetup:
    """Write a setup; with `prune`, delete targets, rule sets, filters and faults not in it.

    `identities` has, by name, the unit that requests the verification of an identity if the account
    does not have it yet; `targets` is by (kind, name). The account is added if there is none. The
    active rule set is deleted only if it is in `may_delete`.

    Raises `SenderNotVerifiedError`, `LimitReachedError`, `ActiveDeletionError`, `NotFoundError`
    when there is no rule set of the name `active_rule_set`, and `DryRunError` at the end of a
    `dry_run`.
    """

    account_id: str
    identities: Mapping[str, Unit[Identity]]
    rule_sets: Mapping[str, Rules]
    active_rule_set: str | None
    filters: tuple[IpFilter, ...]
    targets: Mapping[tuple[str, str], str]
    faults: tuple[FaultRule, ...]
    now: datetime
    prune: bool
    max_rule_sets: int
    max_filters: int
    may_delete: frozenset[str] = frozenset()
    dry_run: bool = False

    def __call__(self, connection: Connection, /) -> Written:
        AddAccount(self.account_id, self.now)(connection)
        lock_account(connection, self.account_id)
        was_active = active_name(connection, self.account_id)
        requested = self._request(connection)
        changes = self._change(connection)
        faults = put_faults(connection, self.faults, self.now, prune=self.prune)
        deletion = self._deletion(connection, was_active)
        written = Written(requested, tuple(filter(None, changes)), tuple(faults), deletion)
        if self.dry_run:
            raise DryRunError(written)
        if deletion is not None and deletion.name not in self.may_delete:
            raise ActiveDeletionError(deletion)
        return written

    def _deletion(self, connection: Connection, was_active: str | None) -> ActiveDeletion | None:
        """Return the deletion of the rule set that was active, if it is deleted."""
        if was_active is None or find_rule_set(connection, self.account_id, was_active):
            return None
        return ActiveDeletion(was_active, active_name(connection, self.account_id))

    def _change(self, connection: Connection) -> list[str]:
        account = self.account_id
        changes = []
        if put_targets(connection, account, self.targets, prune=self.prune):
            changes.append("targets are changed")
        for name, rules in self.rule_sets.items():
            self._check_senders(connection, name, rules)
            change = PutRuleSet(account, name, self.now, rules)(connection)
            changes.append(f"rule set {name} is {change}" if change else "")
        if put_filters(connection, account, self.filters, prune=self.prune, limit=self.max_filters):
            changes.append("filters are changed")
        if self.prune:
            kept = (*self.rule_sets, self.active_rule_set or "")
            deleted = prune_rule_sets(connection, account, kept, self.now)
            changes += [f"rule set {name} is deleted" for name in deleted]
        if count_rule_sets(connection, account) > self.max_rule_sets:
            raise LimitReachedError("rule sets of an account", self.max_rule_sets)
        changes.append(self._activate(connection))
        return changes

    def _request(self, connection: Connection) -> tuple[Identity, ...]:
        return tuple(
            request(connection)
            for name, request in self.identities.items()
            if not find_identities(connection, self.account_id, [name])
        )

    def _check_senders(self, connection: Connection, rule_set: str, rules: Rules) -> None:
        for rule in rules:
            bounces = [action for action in rule.actions if isinstance(action, BounceAction)]
            for bounce in bounces:
                if not self._is_verified(connection, bounce.sender):
                    raise SenderNotVerifiedError(rule_set, rule.name, bounce.sender)

    def _is_verified(self, connection: Connection, sender: str) -> bool:
        try:
            address = parse_mailbox(sender).address
        except AddressError:
            return False
        names = {(self.account_id, name) for name in covering_names(address)}
        return bool(find_verified(connection, names))

    def _activate(self, connection: Connection) -> str:
        name = self.active_rule_set
        if name is None:
            return ""
        has_changed = ActivateRuleSet(self.account_id, name)(connection)
        return f"rule set {name} is active" if has_changed else ""
