"""Decode Query parameters to values, by the model's shapes.

Theory of operation. Names such as `BouncedRecipientInfoList.member.1.Recipient` are split at the
dots into a tree; the tree is then decoded by the operation's input shape. Unknown members are
ignored, as by AWS. What contradicts the shape (a scalar for a structure) is
`InvalidQueryParameter`; an invalid list index or boolean is `MalformedInput`; a missing member or
an enum violation is collected into one `ValidationError`. Lists may have gaps, which count only for
the lists in `SPARSE_LISTS`.

botocore checks no enum, length or pattern in the client, and its model has no lengths or patterns
for most shapes; the constraints observed on the live service are in `aws.constraints`.

Cost: linear in the octets of the pairs. A name has at most `MAX_NAME` characters and `MAX_DEPTH`
parts, which is more than any name of the model; a list has at most `MAX_MEMBERS` members, and an
index, which is at most `MAX_INDEX`, has one spelling. Names that do not begin with a member of the
operation are not split.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.model import ListShape, OperationModel, Shape, StructureShape

from sendback.aws.constraints import (
    ELEMENT_CONSTRAINTS,
    EMPTY_IF_ABSENT,
    EXTRA_CONSTRAINTS,
    MAX_LIST_LENGTHS,
    MAX_STRING,
    NONEMPTY_LISTS,
    SPARSE_LISTS,
    STRING_CONSTRAINTS,
    Constraint,
    broken,
    enum_order,
    is_missing,
    max_length,
    member_order,
    missing_parameter,
)
from sendback.aws.errors import (
    SesError,
    invalid_value,
    malformed_input,
    shown,
    validation_error,
    violation,
)

MAX_NAME = 160
MAX_DEPTH = 10
MAX_MEMBERS = 10_000
MAX_INDEX = 2**31 - 1
_MAX_SCALAR = 64  # characters of a number, a boolean or a date

_INDEX = re.compile(r"[1-9][0-9]{0,9}")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}  # XML Schema 1.1 §3.3.2.2
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")

Value = Any  # str, int, float, bool, bytes, datetime, list[Value] or dict[str, Value], by shape


@dataclass(slots=True)
class _Node:
    """The value of a name, its child nodes, or both."""

    text: str | None = None
    parts: dict[str, "_Node"] = field(default_factory=dict)


@dataclass(slots=True)
class _Reader:
    """The violations found in one request so far."""

    violations: list[str] = field(default_factory=list)


def decode(operation: OperationModel, pairs: Iterable[tuple[str, str]]) -> dict[str, Value]:
    """Return the operation's input with the model's types; members that were not sent are absent.

    Raise `SesError`.
    """
    shape = operation.input_shape
    if shape is None:
        return {}
    tree = _tree(shape, pairs)
    reader = _Reader()
    given = {name: node.text for name, node in tree.parts.items()}
    missing = missing_parameter(shape, given)
    if missing:
        raise SesError("InvalidParameterValue", missing)
    result = _structure(shape, tree, "", "", reader)
    if reader.violations:
        raise validation_error(reader.violations)
    return result


def _tree(shape: StructureShape, pairs: Iterable[tuple[str, str]]) -> _Node:
    root, known = _Node(), shape.members
    for name, text in pairs:
        if len(name) > MAX_NAME:
            raise SesError("InvalidQueryParameter", f"The name {shown(name)} is too long.")
        parts = name.split(".")
        if parts[0] not in known:
            continue
        if len(parts) > MAX_DEPTH:
            raise SesError("InvalidQueryParameter", f"The name {name} has too many parts.")
        _place(root, parts, text)
    return root


def _place(root: _Node, parts: Sequence[str], text: str) -> None:
    node = root
    for part in parts:
        below = node.parts.get(part)
        if below is None:
            below = node.parts[part] = _Node()
        node = below
    if node.text is not None:
        name = ".".join(parts)
        raise SesError("InvalidQueryParameter", f"The parameter {name} occurs twice.")
    node.text = text


def _structure(
    shape: StructureShape, node: _Node, name: str, path: str, reader: _Reader
) -> dict[str, Value]:
    if node.text:
        raise SesError("InvalidQueryParameter", f"{name} is a structure and has no value itself.")
    result: dict[str, Value] = {}
    for member, member_shape in member_order(shape):
        child = node.parts.get(member)
        child_path = f"{path}.{_lower(member)}" if path else _lower(member)
        if child is not None:
            child_name = f"{name}.{member}" if name else member
            result[member] = _value(member_shape, child, child_name, child_path, reader)
            extra = EXTRA_CONSTRAINTS.get((shape.name, member), ())
            reader.violations += _violations(child.text or "", child_path, extra)
        elif (shape.name, member) in EMPTY_IF_ABSENT:
            result[member] = []
        elif member in shape.required_members:
            reader.violations += is_missing(member_shape, child_path)
    return result


def _lower(member: str) -> str:
    return member[0].lower() + member[1:]


def _value(shape: Shape, node: _Node, name: str, path: str, reader: _Reader) -> Value:
    if isinstance(shape, StructureShape):
        return _structure(shape, node, name, path, reader)
    if isinstance(shape, ListShape):
        return _list(shape, node, name, path, reader)
    if node.parts or node.text is None:
        raise SesError("InvalidQueryParameter", f"{name} is a single value and has no parts.")
    if shape.type_name == "string":
        return _string(shape, node.text, path, reader)
    return _scalar(shape, node.text, name)


def _list(shape: ListShape, node: _Node, name: str, path: str, reader: _Reader) -> list[Value]:
    """Return the list in `Name.member.1`, …; `Name=` is the SDKs' form of an empty list."""
    members = node.parts.get("member", _Node())
    if node.text or members.text or node.parts.keys() - {"member"}:
        raise SesError("InvalidQueryParameter", f"{name} is a list: write {name}.member.1, ….")
    items: dict[int, _Node] = {}
    for key, item in members.parts.items():
        items[_index(key)] = item
    _check_length(shape, len(items), path, reader)
    if shape.name in SPARSE_LISTS:
        items = _with_gap(items)
    element = ELEMENT_CONSTRAINTS.get(shape.name)
    if element:
        return _names(items, path, element, reader)
    return [
        _value(shape.member, item, f"{name}.member.{index}", f"{path}.{index}.member", reader)
        for index, item in sorted(items.items())
    ]


def _with_gap(items: dict[int, _Node]) -> dict[int, _Node]:
    """Add an empty member to a list that has gaps, as the live service fills them."""
    last = max(items, default=0)
    return items if last == len(items) else {**items, last + 1: _Node()}


def _check_length(shape: ListShape, length: int, path: str, reader: _Reader) -> None:
    if not length and shape.name in NONEMPTY_LISTS:
        reader.violations.append(violation(path, "have length greater than or equal to 1"))
    limit = MAX_LIST_LENGTHS.get(shape.name, MAX_MEMBERS)
    if length > limit:
        reader.violations.append(_too_long(path, limit))


def _too_long(path: str, limit: int) -> str:
    return violation(path, f"have length less than or equal to {limit}")


def _names(
    items: dict[int, _Node],
    path: str,
    constraints: Sequence[Constraint],
    reader: _Reader,
) -> list[Value]:
    """Return a list whose invalid elements are reported as one violation without an index."""
    values = [item.text or "" for _, item in sorted(items.items())]
    if any(len(value) > MAX_STRING or broken(value, constraints) for value in values):
        texts = ", ".join(f"Member must {constraint.text}" for constraint in constraints)
        reader.violations.append(violation(path, f"satisfy constraint: [{texts}]"))
    return values


def _index(key: str) -> int:
    if not _INDEX.fullmatch(key) or int(key) > MAX_INDEX:
        raise malformed_input(f"{shown(key)} is not a valid index")
    return int(key)


def _string(shape: Shape, text: str, path: str, reader: _Reader) -> str:
    limit = max_length(shape.name) if len(text) > MAX_STRING else None
    if limit is not None and len(text) > limit:
        reader.violations.append(_too_long(path, limit))
        return text
    enum = shape.metadata.get("enum")
    if enum and text not in enum:
        values = ", ".join(enum_order(shape.name, enum))
        reader.violations.append(violation(path, f"satisfy enum value set: [{values}]"))
    reader.violations += _violations(text, path, STRING_CONSTRAINTS.get(shape.name, ()))
    return text


def _violations(text: str, path: str, constraints: Sequence[Constraint]) -> list[str]:
    return [violation(path, constraint.text) for constraint in broken(text, constraints)]


def _scalar(shape: Shape, text: str, name: str) -> Value:
    if shape.type_name == "blob":
        return _blob(text, name)
    if shape.type_name == "boolean":
        return _boolean(text)
    if len(text) > _MAX_SCALAR:
        raise invalid_value(name, f"the value is longer than {_MAX_SCALAR} characters")
    return _SCALARS[shape.type_name](text, name)


def _timestamp(text: str, name: str) -> datetime:
    """Return a timestamp in ISO 8601 (sent by the SDKs) or RFC 822 (documented)."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        moment = _rfc822(text, name)
    try:
        return moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (OverflowError, ValueError):
        raise _wrong(name, text, "is out of range") from None


def _rfc822(text: str, name: str) -> datetime:
    try:
        return parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        raise _wrong(name, text, "is not a timestamp") from None


def _boolean(text: str) -> bool:
    if text not in _BOOLEANS:
        raise malformed_input("boolean must follow xsd1.1 definition")
    return _BOOLEANS[text]


def _integer(text: str, name: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise _wrong(name, text, "is not a whole number")
    return int(text)


def _double(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _wrong(name, text, "is not a number") from None


def _wrong(name: str, text: str, reason: str) -> SesError:
    return invalid_value(name, f"'{shown(text)}' {reason}")


def _blob(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise invalid_value(name, "the value is not base64") from None


_SCALARS = {
    "timestamp": _timestamp,
    "integer": _integer,
    "long": _integer,
    "double": _double,
    "float": _double,
}
