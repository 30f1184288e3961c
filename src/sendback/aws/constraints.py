"""Constraints that the live SES checks and botocore's model lacks.

Lengths and patterns by shape, the order in which SES reports members and enum values, and the
parameters whose absence has an error text of its own. Observed on the live SES; one table for each
kind, so that another observation is another line.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from botocore.model import Shape, StructureShape

from sendback.aws.errors import violation


@dataclass(frozen=True, slots=True)
class Constraint:
    """A requirement: its text in violations, and the test of a value."""

    text: str
    holds: Callable[[str], bool]


_NAME = r"^[a-zA-Z0-9_.-]+$"
_NAME_PATTERN = Constraint(
    f"satisfy regular expression pattern: {_NAME}",
    lambda text: re.fullmatch(r"[a-zA-Z0-9_.-]+", text) is not None,
)
# A blank rule set name is none at all.
_BLANK_OR_NAME = Constraint(
    _NAME_PATTERN.text, lambda text: not text.strip() or _NAME_PATTERN.holds(text)
)
_NOT_EMPTY = Constraint("have length greater than or equal to 1", bool)
_AT_MOST_100 = Constraint("have length less than or equal to 100", lambda text: len(text) <= 100)  # noqa: PLR2004

STRING_CONSTRAINTS: Mapping[str, Sequence[Constraint]] = {
    "ReceiptRuleName": (_NOT_EMPTY, _NAME_PATTERN),
    "ReceiptRuleSetName": (_BLANK_OR_NAME,),
}
# Checked for each element, reported once, under the list's own path.
ELEMENT_CONSTRAINTS: Mapping[str, Sequence[Constraint]] = {
    "ReceiptRuleNamesList": (_AT_MOST_100, _NOT_EMPTY, _NAME_PATTERN),
}
# SES API: "You must specify at least one …"; the model says it in prose only.
NONEMPTY_LISTS = frozenset({"BouncedRecipientInfoList"})

# SES documents no such limits, and real requests are far below them. The cost of matching, looking
# up and repeating names, addresses and ARNs grows with their length.
MAX_STRING = 2048  # default; no limit is lower
MAX_LENGTHS: Mapping[str, int] = {"DiagnosticCode": 4096, "Explanation": 16_384}
MAX_LIST_LENGTHS: Mapping[str, int] = {"ExtensionFieldList": 100}
# Bounded only by the size of the request, or by the operation.
_UNBOUNDED = frozenset({"ExtensionFieldValue", "HeaderValue", "Policy", "TemplateContent"})

# Reported as "X is required." before all other checks; the value tells whether it counts as
# missing.
_REQUIRED_IN_WORDS: Mapping[str, Callable[[str], bool]] = {
    "ReceiptRuleSetName": lambda text: not text.strip(),
    "ReceiptRuleName": lambda _: False,
    "PolicyName": lambda text: not text.strip(),
}
_MEMBER_ORDER: Mapping[str, Sequence[str]] = {
    "BounceAction": ("TopicArn", "SmtpReplyCode", "StatusCode", "Sender", "Message"),
    "CloneReceiptRuleSetRequest": ("OriginalRuleSetName", "RuleSetName"),
    "SNSAction": ("Encoding", "TopicArn"),
}
_ENUM_ORDER: Mapping[str, Sequence[str]] = {
    "InvocationType": ("RequestResponse", "Event"),
    "ReceiptFilterPolicy": ("Allow", "Block"),
    "SNSActionEncoding": ("Base64", "UTF-8"),
    "TlsPolicy": ("Optional", "Require"),
}


def broken(text: str, constraints: Iterable[Constraint]) -> list[Constraint]:
    """Return the constraints that the text violates."""
    return [constraint for constraint in constraints if not constraint.holds(text)]


def max_length(name: str) -> int | None:
    """Return the maximum number of characters of this string shape; None: no limit."""
    return None if name in _UNBOUNDED else MAX_LENGTHS.get(name, MAX_STRING)


def missing_parameter(shape: StructureShape, given: Mapping[str, str | None]) -> str | None:
    """Return the first missing parameter that is reported as "X is required.", or None."""
    for member in shape.required_members:
        is_blank = _REQUIRED_IN_WORDS.get(shape.members[member].name)
        if is_blank and (member not in given or is_blank(given[member] or "")):
            return str(member)
    return None


def is_missing(shape: Shape, path: str) -> list[str]:
    """Return the violations for a required member that was not sent."""
    if shape.name == "ReceiptRuleName":
        constraints = STRING_CONSTRAINTS[shape.name]
        return [violation(path, constraint.text) for constraint in constraints]
    return [violation(path, "not be null")]


def member_order(shape: StructureShape) -> list[tuple[str, Shape]]:
    """Return the members in the order in which their violations are reported."""
    names = _MEMBER_ORDER.get(shape.name) or tuple(shape.members)
    return [(name, shape.members[name]) for name in names]


def enum_order(name: str, values: Sequence[str]) -> Sequence[str]:
    """Return the enum values in the order in which a violation lists them."""
    return _ENUM_ORDER.get(name, values)
