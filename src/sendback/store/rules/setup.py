"""The changes of a setup file, in one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from sendback.mail.address import parse_mailbox
from sendback.mail.covering import covering_names
from sendback.receipt.filters import IpFilter
from sendback.receipt.model import BounceAction, Rules
from sendback.store.engine.errors import RefusedError
from sendback.store.engine.transactions import Unit
from sendback.store.identities.identities import Identity, find_identities, find_verified
from sendback.store.rules.filters import put_filters
from sendback.store.rules.rule_sets import ActivateRuleSet, PutRuleSet, prune_rule_sets
from sendback.store.rules.targets import put_targets


class SenderNotVerifiedError(RefusedError):
    """A rule's bounce action has a sender that the account has not verified."""

    def __init__(self, rule: str, sender: str) -> None:
        super().__init__(f"rule {rule}: Identity is not verified: {sender}")


@dataclass(frozen=True, slots=True)
class WriteSetup:
    """Write a setup; with `prune`, delete targets, rule sets and filters that it does not name.

    `identities` has, by name, the unit that requests the verification of an identity if the account
    does not have it yet; `targets` is by (kind, name). Returns a line for each change.
    Raises `SenderNotVerifiedError`, and `NotFoundError` when there is no rule set of the name
    `active_rule_set`.
    """

    account_id: str
    identities: Mapping[str, Unit[Identity]]
    rule_sets: Mapping[str, Rules]
    active_rule_set: str | None
    filters: tuple[IpFilter, ...]
    targets: Mapping[tuple[str, str], str]
    now: datetime
    prune: bool

    def __call__(self, connection: Connection, /) -> tuple[str, ...]:
        account = self.account_id
        changes = [self._request(connection, name) for name in self.identities]
        if put_targets(connection, account, self.targets, prune=self.prune):
            changes.append("targets are changed")
        for name, rules in self.rule_sets.items():
            self._check_senders(connection, rules)
            change = PutRuleSet(account, name, self.now, rules)(connection)
            changes.append(f"rule set {name} is {change}" if change else "")
        if put_filters(connection, account, self.filters, prune=self.prune):
            changes.append("filters are changed")
        if self.prune:
            kept = (*self.rule_sets, self.active_rule_set or "")
            deleted = prune_rule_sets(connection, account, kept, self.now)
            changes += [f"rule set {name} is deleted" for name in deleted]
        changes.append(self._activate(connection))
        return tuple(change for change in changes if change)

    def _request(self, connection: Connection, name: str) -> str:
        if find_identities(connection, self.account_id, [name]):
            return ""
        identity = self.identities[name](connection)
        return f"identity {name} is {identity.status.value}"

    def _check_senders(self, connection: Connection, rules: Rules) -> None:
        for rule in rules:
            for action in rule.actions:
                if isinstance(action, BounceAction):
                    address = parse_mailbox(action.sender).address
                    names = {(self.account_id, name) for name in covering_names(address)}
                    if not find_verified(connection, names):
                        raise SenderNotVerifiedError(rule.name, action.sender)

    def _activate(self, connection: Connection) -> str:
        name = self.active_rule_set
        if name is None:
            return ""
        has_changed = ActivateRuleSet(self.account_id, name)(connection)
        return f"rule set {name} is active" if has_changed else ""
