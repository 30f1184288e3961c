"""Rules and filters as requests define them: calls of the API, and setup files in their form.

A setup file is decoded as the parameters of API calls, so both are checked by the same code and
refused with the same texts.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sendback.aws.errors import invalid_value
from sendback.aws.model import operation_model
from sendback.aws.query import decode
from sendback.receipt.constraints import check_name, invalid
from sendback.receipt.filters import FilterPolicy, IpFilter
from sendback.receipt.model import Rule
from sendback.receipt.shapes import ActionShapeError, rule_from_shape

Input = Mapping[str, Any]


def rule_set_name_of(given: Input) -> str:
    """Return the name of the rule set that the call is about. Raise `SesError`."""
    name: str = given["RuleSetName"]
    check_name(name, "ruleSetName")
    return name


def active_rule_set_of(given: Input) -> str | None:
    """Return the rule set to activate, or None to deactivate. Raise `SesError`."""
    name: str = given.get("RuleSetName", "").strip()
    if name:
        check_name(name, "ruleSetName")
    return name or None


def rule_of(given: Input) -> Rule:
    """Return the rule of a CreateReceiptRule or UpdateReceiptRule. Raise `SesError`."""
    check_name(given["Rule"]["Name"], "ruleName")
    try:
        return rule_from_shape(given["Rule"])
    except ActionShapeError as error:
        raise invalid(str(error)) from None


def filter_of(given: Input) -> IpFilter:
    """Return the filter of a CreateReceiptFilter."""
    entry = given["Filter"]
    return IpFilter(
        entry["Name"], FilterPolicy(entry["IpFilter"]["Policy"]), entry["IpFilter"]["Cidr"]
    )


def decode_as_call(operation: str, values: Input) -> dict[str, Any]:
    """Return the values as the operation's input, checked as its parameters. Raise `SesError`."""
    pairs = [pair for name, value in values.items() for pair in _pairs(name, value)]
    for name, text in pairs:
        if "\0" in text:  # as `api.forms` does
            raise invalid_value(name, "the value holds a NUL character")
    return decode(operation_model(operation), pairs)


def _pairs(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yield the Query parameters of a value; an empty list or structure is an empty text."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif not value:
        yield name, ""
    elif isinstance(value, Mapping):
        for member, item in value.items():
            yield from _pairs(f"{name}.{member}", item)
    else:
        for number, item in enumerate(value, 1):
            yield from _pairs(f"{name}.member.{number}", item)
