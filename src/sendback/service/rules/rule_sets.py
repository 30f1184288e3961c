"""Rule sets and rules as the API changes them. SES API: the receipt-rule operations.

The order of the checks, and the texts, are those of the live service.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sendback.aws.errors import SesError, shown
from sendback.clock import Clock, to_milliseconds
from sendback.mail.address import Address, AddressError, parse_mailbox
from sendback.mail.covering import covering_names
from sendback.receipt.constraints import (
    MAX_RULE_SETS,
    MAX_RULES,
    already_exists,
    check_order,
    check_rule,
    invalid,
    rule_does_not_exist,
    rule_set_does_not_exist,
)
from sendback.receipt.model import BounceAction, Rule, Rules
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.paging import invalid_token, make_token, read_token
from sendback.service.rules.targets import Targets
from sendback.store.engine.errors import (
    AlreadyExistsError,
    InUseError,
    LimitReachedError,
    NotFoundError,
)
from sendback.store.engine.store import Store
from sendback.store.identities.identities import IsVerified
from sendback.store.rules.rule_sets import (
    ActivateRuleSet,
    AddRuleSet,
    ChangeRules,
    DeleteRuleSet,
    FindActiveRuleSet,
    FindRuleSet,
    ListRuleSets,
    RuleSet,
)

_PAGE = 100


@dataclass(frozen=True, slots=True)
class RuleSetPage:
    """(name, creation date) of each set, and the token of the next page if there is one."""

    rule_sets: Sequence[tuple[str, datetime]]
    next_token: str | None


class RuleSets:
    """The rule sets of all accounts."""

    def __init__(self, store: Store, clock: Clock, targets: Targets, events: EventBus) -> None:
        self._store = store
        self._clock = clock
        self._targets = targets
        self._events = events

    # --- rule sets ----------------------------------------------------------------------------

    async def create(self, account_id: str, name: str) -> None:
        """Create an empty rule set. Raise `SesError`: AlreadyExists, LimitExceeded."""
        await self._add(account_id, name, copy_of=None)

    async def clone(self, account_id: str, name: str, original: str) -> None:
        """Copy a rule set. Raise `SesError`: AlreadyExists, LimitExceeded, RuleSetDoesNotExist."""
        await self._add(account_id, name, copy_of=original)

    async def delete(self, account_id: str, name: str) -> None:
        """Delete a rule set if there is one. Raise `SesError`: CannotDelete if it is active."""
        try:
            was_there = await self._store.write(DeleteRuleSet(account_id, name, self._clock.now()))
        except InUseError:
            text = f"Cannot delete active rule set: {shown(name)}"
            raise SesError("CannotDelete", text, {"Name": name}) from None
        if was_there:
            self._report(account_id, f"rule set {name} is deleted")

    async def describe(self, account_id: str, name: str) -> RuleSet:
        """Return a rule set. Raise `SesError`: RuleSetDoesNotExist."""
        found = await self._store.read(FindRuleSet(account_id, name))
        if found is None:
            raise rule_set_does_not_exist(name)
        return found

    async def describe_active(self, account_id: str) -> RuleSet | None:
        return await self._store.read(FindActiveRuleSet(account_id))

    async def activate(self, account_id: str, name: str | None) -> None:
        """Activate a rule set; None deactivates. Raise `SesError`: RuleSetDoesNotExist."""
        try:
            has_changed = await self._store.write(ActivateRuleSet(account_id, name))
        except NotFoundError as error:
            raise rule_set_does_not_exist(error.name) from None
        if has_changed:
            change = "no rule set is active" if name is None else f"rule set {name} is active"
            self._report(account_id, change)

    async def list(self, account_id: str, token: str | None) -> RuleSetPage:
        """Return one page in order of creation. Raise `SesError` for a malformed token."""
        after = _read_token(token) if token else None
        found = await self._store.read(ListRuleSets(account_id, after, _PAGE + 1))
        page = found[:_PAGE]
        return RuleSetPage(page, _make_token(page[-1]) if len(found) > _PAGE else None)

    async def reorder(self, account_id: str, name: str, order: Sequence[str]) -> None:
        """Raises `SesError`."""

        def change(rules: Rules) -> Rules:
            check_order([rule.name for rule in rules], list(order))
            by_name = {rule.name: rule for rule in rules}
            return tuple(by_name[rule] for rule in order)

        await self._change(account_id, name, change)

    # --- rules --------------------------------------------------------------------------------

    async def create_rule(self, account_id: str, name: str, rule: Rule, after: str | None) -> None:
        """Insert a rule first, or behind `after`. Raise `SesError`."""
        await self._write_rule(
            account_id, name, rule, lambda rules: insert_rule(rules, rule, after)
        )

    async def update_rule(self, account_id: str, name: str, rule: Rule) -> None:
        """Replace a rule; its position stays. Raise `SesError`."""

        def replace(rules: Rules) -> Rules:
            place = _index(rules, rule.name)
            return (*rules[:place], rule, *rules[place + 1 :])

        await self._write_rule(account_id, name, rule, replace)

    async def delete_rule(self, account_id: str, name: str, rule_name: str) -> None:
        """Delete a rule if there is one. Raise `SesError`: RuleSetDoesNotExist."""
        await self._change(
            account_id, name, lambda rules: tuple(r for r in rules if r.name != rule_name)
        )

    async def describe_rule(self, account_id: str, name: str, rule_name: str) -> Rule:
        """Raises `SesError`."""
        rules = (await self.describe(account_id, name)).rules
        return rules[_index(rules, rule_name)]

    async def move_rule(
        self, account_id: str, name: str, rule_name: str, after: str | None
    ) -> None:
        """Move a rule to the front, or behind `after`; after itself it stays. Raise `SesError`."""

        def move(rules: Rules) -> Rules:
            moved = rules[_index(rules, rule_name)]
            if after == rule_name:
                return rules
            others = tuple(rule for rule in rules if rule is not moved)
            place = 0 if after is None else _index(others, after) + 1
            return (*others[:place], moved, *others[place:])

        await self._change(account_id, name, move)

    # --- helpers ------------------------------------------------------------------------------

    async def _add(self, account_id: str, name: str, *, copy_of: str | None) -> None:
        unit = AddRuleSet(account_id, name, self._clock.now(), MAX_RULE_SETS, copy_of)
        try:
            await self._store.write(unit)
        except AlreadyExistsError:
            raise already_exists("Rule set", name) from None
        except LimitReachedError:
            raise too_many("rule sets") from None
        except NotFoundError as error:
            raise rule_set_does_not_exist(error.name) from None
        self._report(account_id, f"rule set {name} is created")

    async def _write_rule(
        self, account_id: str, name: str, rule: Rule, change: Callable[[Rules], Rules]
    ) -> None:
        """Check against the rule set first and against targets last, as the live service."""
        change((await self.describe(account_id, name)).rules)
        await self.check(account_id, rule)
        await self._change(account_id, name, change)

    async def check(self, account_id: str, rule: Rule) -> None:
        """Check a rule's actions, their targets and its bounces' senders. Raise `SesError`."""
        check_rule(rule)
        await self._targets.check_rule(account_id, rule)
        for action in rule.actions:
            if isinstance(action, BounceAction):
                await self._check_sender(account_id, action.sender)

    async def _check_sender(self, account_id: str, sender: str) -> None:
        try:
            address: Address = parse_mailbox(sender).address
        except AddressError:
            raise sender_not_verified(sender) from None
        if not await self._store.read(IsVerified(account_id, covering_names(address))):
            raise sender_not_verified(sender)

    async def _change(self, account_id: str, name: str, change: Callable[[Rules], Rules]) -> None:
        try:
            await self._store.write(ChangeRules(account_id, name, change, self._clock.now()))
        except NotFoundError as error:
            raise rule_set_does_not_exist(error.name) from None
        self._report(account_id, f"rule set {name} is changed")

    def _report(self, account_id: str, change: str) -> None:
        self._events.publish(reports.setting_changed(self._clock.now(), change, account_id))


def insert_rule(rules: Rules, rule: Rule, after: str | None) -> Rules:
    """Return the rules with a new one, first or behind `after`. Raise `SesError`."""
    if any(existing.name == rule.name for existing in rules):
        raise already_exists("Rule", rule.name)
    if len(rules) >= MAX_RULES:
        raise too_many("rules")
    place = 0 if after is None else _index(rules, after) + 1
    return (*rules[:place], rule, *rules[place:])


def sender_not_verified(sender: str) -> SesError:
    """Return the error for a bounce action with this sender."""
    return invalid(f"Identity is not verified: {shown(sender)}")


def too_many(what: str) -> SesError:
    """Return LimitExceeded; `what` is `rule sets` or `rules`."""
    return SesError("LimitExceeded", f"Too many {what}")


def _index(rules: Rules, name: str) -> int:
    for number, rule in enumerate(rules):
        if rule.name == name:
            return number
    raise rule_does_not_exist(name)


def _make_token(last: tuple[str, datetime]) -> str:
    return make_token(json.dumps([to_milliseconds(last[1]), last[0]]))


def _read_token(token: str) -> tuple[datetime, str]:
    try:
        made, name = json.loads(read_token(token))
        if not str(name).isprintable():  # escapes in JSON can mean a NUL, half a surrogate pair
            raise ValueError(name)
        return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=made), str(name)
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise invalid_token(token) from None
