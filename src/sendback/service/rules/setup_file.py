"""A project's setup as a file: identities, rule sets, filters and what their targets are.

Rules are written as the API writes them, checked along botocore's model; applying the same file
twice changes nothing. Everything is checked first and written in one transaction.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.model import ListShape, Shape, StructureShape
from sqlalchemy import Connection

from sendback.aws.errors import SesError
from sendback.aws.model import service_model
from sendback.clock import Clock
from sendback.mail.address import AddressError, identity_name, parse_mailbox
from sendback.mail.covering import covering_names
from sendback.receipt.constraints import MAX_FILTERS, MAX_RULES, check_name, check_rule
from sendback.receipt.filters import FilterPolicy, IpFilter, check_filter
from sendback.receipt.model import BounceAction, Rule, Rules
from sendback.receipt.plan import tasks_of
from sendback.receipt.shapes import ActionShapeError, rule_from_shape
from sendback.service.identities.identities import Identities
from sendback.service.rules.targets import BUCKET, FUNCTION, MAILBOX, TOPIC, Targets, target_of
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit
from sendback.store.identities.identities import Identity, find_identities, find_verified
from sendback.store.rules.filters import put_filters
from sendback.store.rules.rule_sets import ActivateRuleSet, PutRuleSet, prune_rule_sets
from sendback.store.rules.targets import put_targets

_KINDS = {"buckets": BUCKET, "topics": TOPIC, "functions": FUNCTION, "mailboxes": MAILBOX}
_TABLES = {"identities", "active_rule_set", "filters", "rule_sets", *_KINDS}
_TYPES: dict[str, Any] = {"string": str, "boolean": bool, "list": list, "structure": dict}


class SetupError(ValueError):
    """A file that cannot be applied; `str` says where and why."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a file says. `targets` is by (kind, name)."""

    identities: tuple[str, ...]
    rule_sets: Mapping[str, Rules]
    active_rule_set: str | None
    filters: tuple[IpFilter, ...]
    targets: Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Applied:
    """What was changed, and what is missing for it to work: a line each."""

    changes: tuple[str, ...]
    warnings: tuple[str, ...]


def read_setup(text: str, file: Path) -> Setup:
    """Read the text of `file`, which paths in it are relative to. Raises `SetupError`."""
    try:
        content = tomllib.loads(text)
    except RecursionError:
        raise SetupError(f"{file} cannot be used: it is nested too deep") from None
    except ValueError as error:
        raise SetupError(f"{file} is no TOML file: {error}") from None
    return parse_setup(content, file.parent.absolute())


def parse_setup(content: Mapping[str, Any], folder: Path) -> Setup:
    """Raises `SetupError`."""
    unknown = sorted(content.keys() - _TABLES)
    if unknown:
        raise SetupError(f"{unknown[0]} is none of {', '.join(sorted(_TABLES))}")
    rule_sets = _expect(content, "rule_sets", dict)
    active = content.get("active_rule_set")
    return Setup(
        identities=tuple(map(str, _expect(content, "identities", list))),
        rule_sets={name: _rules(name, value) for name, value in rule_sets.items()},
        active_rule_set=None if active is None else str(active),
        filters=_filters(_expect(content, "filters", list)),
        targets={
            (kind, name): _absolute(str(target), folder)
            for table, kind in _KINDS.items()
            for name, target in _expect(content, table, dict).items()
        },
    )


class SetupService:
    """Applies setups."""

    def __init__(
        self, store: Store, clock: Clock, identities: Identities, targets: Targets
    ) -> None:
        self._store = store
        self._clock = clock
        self._identities = identities
        self._targets = targets

    async def apply(self, account_id: str, setup: Setup, *, prune: bool) -> Applied:
        """With `prune`, what the file does not name goes. Raises `SetupError`, `SesError`."""
        asked = {
            identity_name(text): self._identities.asked(account_id, text)
            for text in setup.identities
        }
        unit = _Apply(account_id, setup, asked, self._clock, prune)
        changes = await self._store.write(unit)
        self._identities.wake_delivery()
        return Applied(changes, tuple(await self._warnings(account_id, setup)))

    async def _warnings(self, account_id: str, setup: Setup) -> Sequence[str]:
        warnings = []
        for name, rules in setup.rule_sets.items():
            for rule in rules:
                for task in tasks_of(rule):
                    wanted = target_of(task)
                    if wanted and not await self._targets.is_known(account_id, *wanted):
                        warnings.append(
                            f"rule {rule.name} of {name}: nothing is known about the "
                            f"{wanted[0]} {wanted[1]}"
                        )
        return list(dict.fromkeys(warnings))


@dataclass(frozen=True, slots=True)
class _Apply:
    """The one transaction; answers what it changed."""

    account_id: str
    setup: Setup
    asked: Mapping[str, Unit[Identity]]
    clock: Clock
    prune: bool

    def __call__(self, connection: Connection, /) -> tuple[str, ...]:
        setup, account = self.setup, self.account_id
        changes = [self._ask(connection, name) for name in self.asked]
        if put_targets(connection, account, setup.targets, prune=self.prune):
            changes.append("targets are changed")
        for name, rules in setup.rule_sets.items():
            self._check_senders(connection, rules)
            made = PutRuleSet(account, name, self.clock.now(), rules)(connection)
            changes.append(f"rule set {name} is {made}" if made else "")
        if put_filters(connection, account, setup.filters, prune=self.prune):
            changes.append("filters are changed")
        if self.prune:
            kept = (*setup.rule_sets, setup.active_rule_set or "")
            gone = prune_rule_sets(connection, account, kept, self.clock.now())
            changes += [f"rule set {name} is deleted" for name in gone]
        changes.append(self._activate(connection))
        return tuple(change for change in changes if change)

    def _ask(self, connection: Connection, name: str) -> str:
        """An identity that is verified or waits to be is left alone."""
        if find_identities(connection, self.account_id, [name]):
            return ""
        identity = self.asked[name](connection)
        return f"identity {name} is {identity.status.value}"

    def _check_senders(self, connection: Connection, rules: Rules) -> None:
        for rule in rules:
            for action in rule.actions:
                if isinstance(action, BounceAction):
                    address = parse_mailbox(action.sender).address
                    names = {(self.account_id, name) for name in covering_names(address)}
                    if not find_verified(connection, names):
                        raise SetupError(
                            f"rule {rule.name}: Identity is not verified: {action.sender}"
                        )

    def _activate(self, connection: Connection) -> str:
        name = self.setup.active_rule_set
        if name is None:
            return ""
        found = ActivateRuleSet(self.account_id, name)(connection)
        if found is None:
            raise SetupError(f"active_rule_set: there is no rule set {name}")
        return f"rule set {name} is active" if found else ""


def _expect(content: Mapping[str, Any], name: str, kind: type) -> Any:
    value = content.get(name, kind())
    if not isinstance(value, kind):
        wanted = "a list" if kind is list else "a table"
        raise SetupError(f"{name} must be {wanted}")
    return value


def _rules(name: str, value: Any) -> Rules:
    path = f"rule_sets.{name}"
    if not isinstance(value, dict) or value.keys() - {"rules"}:
        raise SetupError(f"{path} must hold [[{path}.rules]]")
    try:
        check_name(name, "ruleSetName")
        rules = tuple(
            _rule(shape, f"{path}.rules[{number}]")
            for number, shape in enumerate(_expect(value, "rules", list), 1)
        )
    except SesError as error:
        raise SetupError(f"{path}: {error.message}") from None
    names: set[str] = set()
    for rule in rules:
        if rule.name in names:
            raise SetupError(f"{path}: there are two rules {rule.name}")
        names.add(rule.name)
    if len(rules) > MAX_RULES:
        raise SetupError(f"{path}: Too many rules")
    return rules


def _rule(shape: Any, path: str) -> Rule:
    """A rule of a file is enabled unless it says otherwise: that is what it is written for."""
    _check_shape(service_model().shape_for("ReceiptRule"), shape, path)
    try:
        rule = rule_from_shape({"Enabled": True, **shape})
        check_name(rule.name, "ruleName")
        check_rule(rule)
        for action in rule.actions:
            if isinstance(action, BounceAction):
                parse_mailbox(action.sender)
    except SesError as error:
        raise SetupError(f"{path}: {error.message}") from None
    except (ActionShapeError, AddressError) as error:
        raise SetupError(f"{path}: {error}") from None
    return rule


def _check_shape(shape: Shape, value: Any, path: str) -> None:
    """Holds a value of the file against botocore's model."""
    if not isinstance(value, _TYPES[shape.type_name]):
        raise SetupError(f"{path} must be a {shape.type_name}")
    if isinstance(shape, ListShape):
        for number, item in enumerate(value, 1):
            _check_shape(shape.member, item, f"{path}[{number}]")
    elif isinstance(shape, StructureShape):
        _check_members(shape, value, path)
    enum = shape.metadata.get("enum")
    if enum and value not in enum:
        raise SetupError(f"{path} must be one of {', '.join(enum)}")


def _check_members(shape: StructureShape, value: Mapping[str, Any], path: str) -> None:
    for member, item in value.items():
        if member not in shape.members:
            raise SetupError(f"{path}.{member} is none of {', '.join(shape.members)}")
        _check_shape(shape.members[member], item, f"{path}.{member}")
    for member in shape.required_members:
        if member not in value:
            raise SetupError(f"{path}.{member} is missing")


def _filters(values: Sequence[Any]) -> tuple[IpFilter, ...]:
    filters = []
    for number, value in enumerate(values, 1):
        path = f"filters[{number}]"
        if not isinstance(value, dict) or value.keys() != {"Name", "Policy", "Cidr"}:
            raise SetupError(f"{path} must hold Name, Policy and Cidr")
        try:
            entry = IpFilter(str(value["Name"]), FilterPolicy(value["Policy"]), str(value["Cidr"]))
            check_filter(entry)
        except SesError as error:
            raise SetupError(f"{path}: {error.message}") from None
        except ValueError:
            raise SetupError(f"{path}.Policy must be one of Block, Allow") from None
        filters.append(entry)
    names = [entry.name for entry in filters]
    if len(set(names)) < len(names) or len(names) > MAX_FILTERS:
        raise SetupError("filters: too many, or two of one name")
    return tuple(filters)


def _absolute(target: str, folder: Path) -> str:
    """A target's path as it will be understood from anywhere."""
    scheme, _, rest = target.partition(":")
    if scheme in {"directory", "python", "node"}:
        return f"{scheme}:{folder / rest}"
    if scheme in {"http", "https", "smtp", "endpoint"} or target == "aws":
        return target
    raise SetupError(
        f"{target!r} is no target: write directory:PATH, python:FILE.py:FUNCTION, "
        "node:FILE.mjs:EXPORT, an http, https or smtp URL, endpoint:URL, or aws"
    )
