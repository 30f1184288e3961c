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

_ROLE_PATTERN = r"arn:[\w-]+:iam::[0-9]+:role(\u002F)([\u0021-\u007E]+\u002F)?([\w+=,.@-]+)"
_CONNECT_PATTERN = (
    r"arn:(aws|aws-us-gov):connect:[a-z]{2}-[a-z]+-[0-9-]{1}:[0-9]{1,20}:instance/"
    r"[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}"
)


def _is_role(text: str) -> bool:
    """Return whether the text matches `_ROLE_PATTERN`, in time that is linear in its length."""
    head, _, name = text.rpartition("/")
    begin = re.match(r"arn:[\w-]+:iam::[0-9]+:role(?:/[!-~]+)?\Z", head, re.ASCII)
    return begin is not None and re.fullmatch(r"[\w+=,.@-]+", name, re.ASCII) is not None


# Those that botocore's model states are here too: its patterns are Java's, and not all linear.
STRING_CONSTRAINTS: Mapping[str, Sequence[Constraint]] = {
    "ConnectInstanceArn": (
        Constraint(
            f"satisfy regular expression pattern: {_CONNECT_PATTERN}",
            lambda text: re.fullmatch(_CONNECT_PATTERN, text) is not None,
        ),
    ),
    "IAMRoleARN": (
        Constraint("have length greater than or equal to 20", lambda text: len(text) >= 20),  # noqa: PLR2004
        Constraint(f"satisfy regular expression pattern: {_ROLE_PATTERN}", _is_role),
    ),
    "Policy": (_NOT_EMPTY,),
    "ReceiptRuleName": (_NOT_EMPTY, _NAME_PATTERN),
    "ReceiptRuleSetName": (_BLANK_OR_NAME,),
}
# Checked for each element, reported once, under the list's own path.
ELEMENT_CONSTRAINTS: Mapping[str, Sequence[Constraint]] = {
    "ReceiptRuleNamesList": (_AT_MOST_100, _NOT_EMPTY, _NAME_PATTERN),
}
# SES API: "You must specify at least one …"; the model says it in prose only.
NONEMPTY_LISTS = frozenset({"BouncedRecipientInfoList"})

# A gap counts as an empty member: the live SES refuses `Actions.member.2` without `member.1`. In
# other lists gaps are closed.
SPARSE_LISTS = frozenset({"ReceiptActionsList", "ReceiptRuleNamesList"})

# SES documents no such limits, and real requests are far below them. The cost of matching, looking
# up and repeating names, addresses and ARNs grows with their length.
MAX_STRING = 2048  # default; no limit is lower
MAX_LENGTHS: Mapping[str, int] = {"DiagnosticCode": 4096, "Explanation": 16_384}
MAX_LIST_LENGTHS: Mapping[str, int] = {"ExtensionFieldList": 100}
# Bounded only by the size of the request, or by the operation.
_UNBOUNDED = frozenset({"ExtensionFieldValue", "HeaderValue", "Policy", "TemplateContent"})


def _is_blank(text: str) -> bool:
    return not text.strip()


# Reported in words before all other checks, by shape; the function returns whether a text that
# was sent counts as missing.
_REQUIRED_IN_WORDS: Mapping[str, Callable[[str], bool]] = {
    "FailureRedirectionURL": _is_blank,
    "FromAddress": _is_blank,
    "PolicyName": _is_blank,
    "ReceiptRuleName": lambda _: False,
    "ReceiptRuleSetName": _is_blank,
    "Subject": _is_blank,
    "SuccessRedirectionURL": _is_blank,
    "TemplateContent": _is_blank,
    "TemplateName": _is_blank,
}
_NOT_BLANK = Constraint(_NAME_PATTERN.text, lambda text: bool(text.strip()))
# For some members only: these operations check an empty name as a text.
EXTRA_CONSTRAINTS: Mapping[tuple[str, str], Sequence[Constraint]] = {
    ("CloneReceiptRuleSetRequest", "OriginalRuleSetName"): (_NOT_EMPTY, _NOT_BLANK),
    ("CloneReceiptRuleSetRequest", "RuleSetName"): (_NOT_EMPTY, _NOT_BLANK),
    ("ReorderReceiptRuleSetRequest", "RuleSetName"): (_NOT_EMPTY, _NOT_BLANK),
}
# Required lists that are empty if they were not sent.
EMPTY_IF_ABSENT = frozenset({("ReorderReceiptRuleSetRequest", "RuleNames")})
# Members whose absence has a text of its own.
_MISSING_TEXTS: Mapping[tuple[str, str], str] = {
    ("SendCustomVerificationEmailRequest", "EmailAddress"): "Email address not specified.",
}
_MEMBER_ORDER: Mapping[str, Sequence[str]] = {
    "BounceAction": ("TopicArn", "SmtpReplyCode", "StatusCode", "Sender", "Message"),
    "CloneReceiptRuleSetRequest": ("OriginalRuleSetName", "RuleSetName"),
    "SNSAction": ("Encoding", "TopicArn"),
}
_ENUM_ORDER: Mapping[str, Sequence[str]] = {
    "BehaviorOnMXFailure": ("RejectMessage", "UseDefaultValue"),
    "IdentityType": ("Domain", "EmailAddress"),
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
    """Return the text for the first missing parameter that is reported in words, or None."""
    for member in shape.required_members:
        text = _MISSING_TEXTS.get((shape.name, member))
        is_blank = _is_blank if text else _REQUIRED_IN_WORDS.get(shape.members[member].name)
        if is_blank is None:
            continue
        if (shape.name, member) in EXTRA_CONSTRAINTS and member in given:
            continue
        if member not in given or is_blank(given[member] or ""):
            return text or f"{member} is required."
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
