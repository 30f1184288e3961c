"""Setup files: identities, rule sets, filters and targets of a project.

Rules have the form of the API and are checked against botocore's model; applying a file twice
changes nothing.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.model import ListShape, Shape, StructureShape

from sendback.aws.errors import SesError
from sendback.aws.model import service_model
from sendback.errors import InvalidInputError
from sendback.mail.address import AddressError, parse_mailbox
from sendback.receipt.constraints import MAX_FILTERS, MAX_RULES, check_name, check_rule
from sendback.receipt.filters import FilterPolicy, IpFilter, check_filter
from sendback.receipt.model import BounceAction, Rule, Rules
from sendback.receipt.shapes import ActionShapeError, rule_from_shape
from sendback.service.rules.targets import BUCKET, FUNCTION, MAILBOX, TOPIC

_KINDS = {"buckets": BUCKET, "topics": TOPIC, "functions": FUNCTION, "mailboxes": MAILBOX}
_TABLES = {"identities", "active_rule_set", "filters", "rule_sets", *_KINDS}
_TYPES: dict[str, Any] = {"string": str, "boolean": bool, "list": list, "structure": dict}


class SetupError(InvalidInputError):
    """A file that cannot be applied; `str` says where and why."""


@dataclass(frozen=True, slots=True)
class Setup:
    """The content of a file. `targets` is by (kind, name)."""

    identities: tuple[str, ...]
    rule_sets: Mapping[str, Rules]
    active_rule_set: str | None
    filters: tuple[IpFilter, ...]
    targets: Mapping[tuple[str, str], str]


def read_setup(text: str, file: Path) -> Setup:
    """Parse the text of `file`; paths in it are relative to it. Raise `SetupError`."""
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
    """Return a rule; in a file, rules are enabled by default."""
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
    """Check a value against botocore's model."""
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
    """Return the target with an absolute path."""
    scheme, _, rest = target.partition(":")
    if scheme in {"directory", "python", "node"}:
        return f"{scheme}:{folder / rest}"
    if scheme in {"http", "https", "smtp", "endpoint"} or target == "aws":
        return target
    raise SetupError(
        f"{target!r} is no target: write directory:PATH, python:FILE.py:FUNCTION, "
        "node:FILE.mjs:EXPORT, an http, https or smtp URL, endpoint:URL, or aws"
    )
