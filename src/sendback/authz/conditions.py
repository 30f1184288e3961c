"""Condition operators. IAM User Guide, "Condition operators" and "Multivalued context keys".

Theory of operation. `OPERATORS` has for each operator the comparison of one value of the policy
with one of the request, whether the result is negated, and the check of a value of the policy.
These rules apply to all operators:

| the request's key          | operator | …IfExists | ForAllValues: | ForAnyValue: |
| -------------------------- | -------- | --------- | ------------- | ------------ |
| is absent or empty         | false    | true      | true          | false        |
| is absent, negated operator| true     | true      | true          | false        |
| has values                 | any matches, none for a negated one | all satisfy  | one satisfies |

Several values in the policy are alternatives: a value of the request matches when it matches one of
them, and satisfies a negated operator when it matches none.
"""

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial

from sendback.authz.patterns import (
    Context,
    Pattern,
    Wild,
    matches,
    read_literal,
    read_pattern,
)
from sendback.mail.printable import printable

# Compares a value of the policy, with its variables replaced, with a value of the request.
Matcher = Callable[[str, str], bool]
PatternMatcher = Callable[[Pattern, str], bool]

_NUMBER = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_EPOCH = re.compile(r"\d{1,12}", re.ASCII)
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_ARN_PARTS = 6


@dataclass(frozen=True, slots=True)
class Operator:
    """`compare` is for text, `like` for patterns; `wrong` returns a value's fault or None."""

    compare: Matcher | None = None
    like: PatternMatcher | None = None
    negated: bool = False
    wrong: Callable[[str], str | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key. `key` is in lower case, because keys are case-insensitive."""

    operator: str
    key: str
    values: tuple[str, ...]
    quantifier: str = ""  # ForAllValues, ForAnyValue
    if_exists: bool = False

    def __str__(self) -> str:
        prefix = f"{self.quantifier}:" if self.quantifier else ""
        suffix = "IfExists" if self.if_exists else ""
        return f"{prefix}{self.operator}{suffix} {self.key}"


def holds(condition: Condition, context: Context, *, variables: bool) -> bool:
    """Whether the condition is true in the context; see the table above."""
    values = context.get(condition.key, ())
    if condition.operator == NULL:
        return any((wanted.lower() == "true") == (not values) for wanted in condition.values)
    operator = OPERATORS[condition.operator]
    if not values:
        return _holds_without(condition, negated=operator.negated)
    wanted = _tests(operator, condition, context, variables=variables)

    def is_right(value: str) -> bool:
        return any(test(value) for test in wanted) is not operator.negated

    if condition.quantifier == FOR_ANY:
        return any(map(is_right, values))
    # A negated operator on several values without a quantifier: none may match.
    if condition.quantifier == FOR_ALL or operator.negated:
        return all(map(is_right, values))
    return any(map(is_right, values))


def _holds_without(condition: Condition, *, negated: bool) -> bool:
    if condition.if_exists or condition.quantifier == FOR_ALL:
        return True
    return negated and condition.quantifier != FOR_ANY


def _tests(
    operator: Operator, condition: Condition, context: Context, *, variables: bool
) -> list[Callable[[str], bool]]:
    """Return a test for each value of the policy whose variables have values."""
    tests: list[Callable[[str], bool]] = []
    for text in condition.values:
        if operator.like is not None:
            pattern = read_pattern(text, context, variables=variables)
            tests += [] if pattern is None else [partial(operator.like, pattern)]
        elif operator.compare is not None:
            literal = read_literal(text, context, variables=variables)
            tests += [] if literal is None else [partial(operator.compare, literal)]
    return tests


# --- values -------------------------------------------------------------------------------------


def number(text: str) -> Decimal | None:
    """Return a number in JSON's syntax; None for other texts."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def moment(text: str) -> float | None:
    """Return the Unix seconds of an ISO 8601 date (default: UTC) or of Unix seconds, else None."""
    if _EPOCH.fullmatch(text):
        return float(text)
    if not _DATE.fullmatch(text):
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


@lru_cache(maxsize=1024)
def network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network of an address or of a block in CIDR notation; None if invalid."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def octets(text: str) -> bytes | None:
    """Return the octets of base64; None if invalid."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _in_network(wanted: str, value: str) -> bool:
    block = network(wanted)
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return block is not None and (mapped or address) in block


def _same_octets(wanted: str, value: str) -> bool:
    found = octets(wanted)
    return found is not None and found == octets(value)


def _like_arn(pattern: Pattern, value: str) -> bool:
    """Whether the ARN matches part by part: only in the last part a wildcard matches a colon."""
    parts = _split_arn(pattern)
    values = value.split(":", _ARN_PARTS - 1)
    if len(parts) != _ARN_PARTS or len(values) != _ARN_PARTS:
        return False
    return all(matches(part, text) for part, text in zip(parts, values, strict=True))


def _split_arn(pattern: Pattern) -> list[Pattern]:
    """Split at the first five colons, including colons from variables."""
    parts: list[list[str | Wild]] = [[]]
    for piece in pattern:
        if isinstance(piece, Wild):
            parts[-1].append(piece)
            continue
        text, *others = piece.split(":", _ARN_PARTS - len(parts))
        parts[-1].append(text)
        parts += [[other] for other in others]
    return [tuple(part) for part in parts]


def _numbers(compare: Callable[[Decimal, Decimal], bool]) -> Matcher:
    """Return a matcher; `compare` takes the request's value, then the policy's."""

    def run(wanted: str, value: str) -> bool:
        left, right = number(value), number(wanted)
        return left is not None and right is not None and compare(left, right)

    return run


def _moments(compare: Callable[[float, float], bool]) -> Matcher:
    def run(wanted: str, value: str) -> bool:
        left, right = moment(value), moment(wanted)
        return left is not None and right is not None and compare(left, right)

    return run


def _must_be(read: Callable[[str], object], what: str) -> Callable[[str], str | None]:
    return lambda text: None if read(text) is not None else f"'{printable(text)}' is not {what}"


def _boolean(text: str) -> str | None:
    if text.lower() in {"true", "false"}:
        return None
    return f"'{printable(text)}' is neither true nor false"


def _arn(text: str) -> str | None:
    if text.count(":") >= _ARN_PARTS - 1:
        return None
    return f"'{printable(text)}' is not an ARN: arn:partition:service:region:account:…"


_A_NUMBER = _must_be(number, "a number")
_A_DATE = _must_be(moment, "a date such as 2026-12-31T00:00:00Z, or Unix seconds")
_A_NETWORK = _must_be(network, "an IP address or a block such as 192.0.2.0/24")
_BASE64 = _must_be(octets, "base64")

_IGNORE_CASE: Matcher = lambda wanted, value: wanted.casefold() == value.casefold()  # noqa: E731
_EQUAL: Matcher = lambda wanted, value: wanted == value  # noqa: E731

NULL = "Null"
FOR_ALL, FOR_ANY = "ForAllValues", "ForAnyValue"
QUANTIFIERS = (FOR_ALL, FOR_ANY)

OPERATORS: Mapping[str, Operator] = {
    "StringEquals": Operator(_EQUAL),
    "StringNotEquals": Operator(_EQUAL, negated=True),
    "StringEqualsIgnoreCase": Operator(_IGNORE_CASE),
    "StringNotEqualsIgnoreCase": Operator(_IGNORE_CASE, negated=True),
    "StringLike": Operator(like=matches),
    "StringNotLike": Operator(like=matches, negated=True),
    "NumericEquals": Operator(_numbers(lambda a, b: a == b), wrong=_A_NUMBER),
    "NumericNotEquals": Operator(_numbers(lambda a, b: a == b), negated=True, wrong=_A_NUMBER),
    "NumericLessThan": Operator(_numbers(lambda a, b: a < b), wrong=_A_NUMBER),
    "NumericLessThanEquals": Operator(_numbers(lambda a, b: a <= b), wrong=_A_NUMBER),
    "NumericGreaterThan": Operator(_numbers(lambda a, b: a > b), wrong=_A_NUMBER),
    "NumericGreaterThanEquals": Operator(_numbers(lambda a, b: a >= b), wrong=_A_NUMBER),
    "DateEquals": Operator(_moments(lambda a, b: a == b), wrong=_A_DATE),
    "DateNotEquals": Operator(_moments(lambda a, b: a == b), negated=True, wrong=_A_DATE),
    "DateLessThan": Operator(_moments(lambda a, b: a < b), wrong=_A_DATE),
    "DateLessThanEquals": Operator(_moments(lambda a, b: a <= b), wrong=_A_DATE),
    "DateGreaterThan": Operator(_moments(lambda a, b: a > b), wrong=_A_DATE),
    "DateGreaterThanEquals": Operator(_moments(lambda a, b: a >= b), wrong=_A_DATE),
    "Bool": Operator(_IGNORE_CASE, wrong=_boolean),
    "BinaryEquals": Operator(_same_octets, wrong=_BASE64),
    "IpAddress": Operator(_in_network, wrong=_A_NETWORK),
    "NotIpAddress": Operator(_in_network, negated=True, wrong=_A_NETWORK),
    "ArnEquals": Operator(like=_like_arn, wrong=_arn),
    "ArnNotEquals": Operator(like=_like_arn, negated=True, wrong=_arn),
    "ArnLike": Operator(like=_like_arn, wrong=_arn),
    "ArnNotLike": Operator(like=_like_arn, negated=True, wrong=_arn),
    NULL: Operator(_IGNORE_CASE, wrong=_boolean),
}
