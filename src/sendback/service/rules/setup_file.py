"""Setup files: identities, rule sets, filters, targets and faults of a project.

Rules and filters have the form of the API and are checked as its calls are, with the same texts.
Applying a file twice changes nothing.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.model import ListShape, Shape, StructureShape

from sendback.aws.errors import SesError
from sendback.aws.model import service_model
from sendback.errors import InvalidInputError
from sendback.faults.model import FaultRule
from sendback.faults.rules import FaultError, parse_fault
from sendback.receipt.constraints import MAX_FILTERS, already_exists, check_rule
from sendback.receipt.filters import IpFilter, check_filter
from sendback.receipt.model import Rule, Rules
from sendback.redaction import shown_wrong, split_url
from sendback.service.rules.filters import too_many_filters
from sendback.service.rules.requests import (
    active_rule_set_of,
    decode_as_call,
    filter_of,
    rule_of,
    rule_set_name_of,
)
from sendback.service.rules.rule_sets import insert_rule
from sendback.service.rules.targets import BUCKET, FUNCTION, MAILBOX, TOPIC

TABLES = {BUCKET: "buckets", TOPIC: "topics", FUNCTION: "functions", MAILBOX: "mailboxes"}
_KEYS = {"identities", "active_rule_set", "faults", "filters", "rule_sets", *TABLES.values()}
_TYPES: dict[str, Any] = {"string": str, "boolean": bool, "list": list, "structure": dict}
_FILTER_MEMBERS = {"Name", "Policy", "Cidr"}
_AWS = "endpoint:URL, or aws"
_FORMS = {
    BUCKET: f"directory:PATH, {_AWS}",
    TOPIC: f"an http or https URL, {_AWS}",
    FUNCTION: f"python:FILE.py:FUNCTION, node:FILE.mjs:EXPORT, an http or https URL, {_AWS}",
    MAILBOX: "smtp://HOST:PORT",
}


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
    faults: tuple[FaultRule, ...] = ()


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
    unknown = sorted(content.keys() - _KEYS)
    if unknown:
        raise SetupError(f"{unknown[0]} is none of {', '.join(sorted(_KEYS))}")
    rule_sets = _expect(content, "rule_sets", dict)
    return Setup(
        identities=_identities(_expect(content, "identities", list)),
        rule_sets={name: _rules(name, value) for name, value in rule_sets.items()},
        active_rule_set=_active(content.get("active_rule_set")),
        filters=_filters(_expect(content, "filters", list)),
        targets={
            (kind, name): _target(kind, name, target, folder)
            for kind, table in TABLES.items()
            for name, target in _expect(content, table, dict).items()
        },
        faults=_faults(_expect(content, "faults", list)),
    )


def _expect(content: Mapping[str, Any], name: str, kind: type) -> Any:
    value = content.get(name, kind())
    if not isinstance(value, kind):
        wanted = "a list" if kind is list else "a table"
        raise SetupError(f"{name} must be {wanted}")
    return value


@contextmanager
def located(path: str) -> Iterator[None]:
    """Raise the `SesError` of the block as a `SetupError` that says where in the file it is."""
    try:
        yield
    except SesError as error:
        raise SetupError(f"{path}: {error.message}") from None


def _identities(values: Sequence[Any]) -> tuple[str, ...]:
    for number, text in enumerate(values, 1):
        path = f"identities[{number}]"
        if not isinstance(text, str):
            raise SetupError(f"{path} must be a string")
        with located(path):
            if "@" in text:
                decode_as_call("VerifyEmailIdentity", {"EmailAddress": text})
            else:
                decode_as_call("VerifyDomainIdentity", {"Domain": text})
    return tuple(values)


def _active(name: Any) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip():
        raise SetupError("active_rule_set must be the name of a rule set")
    with located("active_rule_set"):
        given = decode_as_call("SetActiveReceiptRuleSet", {"RuleSetName": name})
        return active_rule_set_of(given)


def _rules(name: str, value: Any) -> Rules:
    path = f"rule_sets.{name}"
    if not isinstance(value, dict) or value.keys() - {"rules"}:
        raise SetupError(f"{path} must hold [[{path}.rules]]")
    with located(path):
        rule_set_name_of(decode_as_call("CreateReceiptRuleSet", {"RuleSetName": name}))
    rules: Rules = ()
    for number, shape in enumerate(_expect(value, "rules", list), 1):
        where = f"{path}.rules[{number}]"
        _check_types(service_model().shape_for("ReceiptRule"), shape, where)
        with located(where):
            rules = _with_rule(rules, name, shape)
    return rules


def _with_rule(rules: Rules, name: str, shape: Mapping[str, Any]) -> Rules:
    """Add a rule as CreateReceiptRule does; in a file, rules are enabled by default."""
    values = {"RuleSetName": name, "Rule": {"Enabled": True, **shape}}
    rule: Rule = rule_of(decode_as_call("CreateReceiptRule", values))
    new = insert_rule(rules, rule, rules[-1].name if rules else None)
    check_rule(rule)
    return new


def _check_types(shape: Shape, value: Any, path: str) -> None:
    """Check the types of a value and the names of its members, which a call has no errors for."""
    if not isinstance(value, _TYPES[shape.type_name]):
        raise SetupError(f"{path} must be a {shape.type_name}")
    if isinstance(shape, ListShape):
        for number, item in enumerate(value, 1):
            _check_types(shape.member, item, f"{path}[{number}]")
    elif isinstance(shape, StructureShape):
        for member, item in value.items():
            if member not in shape.members:
                raise SetupError(f"{path}.{member} is none of {', '.join(shape.members)}")
            _check_types(shape.members[member], item, f"{path}.{member}")


def _filters(values: Sequence[Any]) -> tuple[IpFilter, ...]:
    filters: dict[str, IpFilter] = {}
    for number, value in enumerate(values, 1):
        path = f"filters[{number}]"
        if not isinstance(value, dict) or value.keys() - _FILTER_MEMBERS:
            raise SetupError(f"{path} must hold Name, Policy and Cidr")
        if not all(isinstance(text, str) for text in value.values()):
            raise SetupError(f"{path}: Name, Policy and Cidr must be strings")
        with located(path):
            entry = _filter(value)
            if entry.name in filters:
                raise already_exists("Filter", entry.name)
            if len(filters) >= MAX_FILTERS:
                raise too_many_filters()
        filters[entry.name] = entry
    return tuple(filters.values())


def _filter(value: Mapping[str, str]) -> IpFilter:
    """Return a filter, checked as CreateReceiptFilter does. Raise `SesError`."""
    name = {"Name": value["Name"]} if "Name" in value else {}
    members = {member: text for member, text in value.items() if member != "Name"}
    values = {"Filter": {**name, "IpFilter": members}}
    entry = filter_of(decode_as_call("CreateReceiptFilter", values))
    check_filter(entry)
    return entry


def _faults(values: Sequence[Any]) -> tuple[FaultRule, ...]:
    faults: dict[str, FaultRule] = {}
    for number, value in enumerate(values, 1):
        path = f"faults[{number}]"
        try:
            rule = parse_fault(value)
        except FaultError as error:
            raise SetupError(f"{path}: {error}") from None
        if not rule.name:  # applying the file again would add it again
            raise SetupError(f"{path}: a fault in a file must have a name")
        if rule.name in faults:
            raise SetupError(f"{path}: there is a fault {rule.name} already")
        faults[rule.name] = rule
    return tuple(faults.values())


def _target(kind: str, name: str, target: Any, folder: Path) -> str:
    """Return the target with an absolute path."""
    path = f"{TABLES[kind]}.{name}"
    if not isinstance(target, str):
        raise SetupError(f"{path} must be a string")
    if "\0" in name + target:  # text in PostgreSQL cannot contain it
        raise SetupError(f"{TABLES[kind]}: a NUL character is not allowed")
    scheme, _, rest = target.partition(":")
    if not _has_form(kind, target, scheme, rest):
        raise SetupError(f"{path}: {shown_wrong(target)!r} is no target: write {_FORMS[kind]}")
    return f"{scheme}:{folder / rest}" if scheme in {"directory", "python", "node"} else target


def _has_form(kind: str, target: str, scheme: str, rest: str) -> bool:
    """Return whether the target has one of the forms in `_FORMS`."""
    if kind == MAILBOX:
        return _is_url(target, {"smtp"})
    if target == "aws" or (scheme == "endpoint" and _is_url(rest, {"http", "https"})):
        return True
    if kind == BUCKET:
        return scheme == "directory" and bool(rest)
    if kind == FUNCTION and scheme in {"python", "node"}:
        file, _, handler = rest.rpartition(":")
        return bool(file and handler)
    return _is_url(target, {"http", "https"})


def _is_url(text: str, schemes: set[str]) -> bool:
    try:
        parts = split_url(text)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)
