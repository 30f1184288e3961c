"""Parse policy documents by IAM's grammar; an error names the faulty element.

Source: IAM User Guide, "Grammar of the IAM JSON policy language"; SES developer guide, "Amazon SES
policy anatomy". A sending-authorization policy is attached to an identity and names principals; a
user's policy is attached to a user and names resources of any kind.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Any, TypeVar

from sendback.authz.conditions import NULL, OPERATORS, QUANTIFIERS, Condition
from sendback.authz.patterns import matches_text
from sendback.errors import SendbackError
from sendback.mail.printable import printable

MAX_OCTETS = 4096
_MAX_REASON = 300  # characters
VERSIONS = ("2008-10-17", "2012-10-17")  # the first is the default

_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_IAM_ARN = re.compile(
    r"arn:aws[a-z-]*:(?:iam::\d{12}:(?:root|(?:user|role)/[\w+=,.@/-]{1,512})"
    r"|sts::\d{12}:(?:assumed-role|federated-user)/[\w+=,.@/-]{1,512})",
    re.ASCII,
)
_SERVICE = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+", re.ASCII)
_ACTION = re.compile(r"\*|[A-Za-z0-9-]+:[A-Za-z0-9*?]+", re.ASCII)
_SPACE_OR_STRING = re.compile(r'("(?:[^"\\]++|\\.)*+")|[ \t\r\n]++')
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_KEY = re.compile(r"[A-Za-z0-9-]+:[^\s:][^\s]*", re.ASCII)

T = TypeVar("T")


class PolicyError(SendbackError, ValueError):
    """An invalid policy; `str(error)` is the element and the reason.

    Both may repeat parts of the document: they are cut.
    """

    def __init__(self, place: str, reason: str) -> None:
        reason = printable(reason, _MAX_REASON)
        super().__init__(f"{printable(place)}: {reason}" if place else reason)


class Effect(StrEnum):
    """What a statement does when it matches."""

    ALLOW = "Allow"
    DENY = "Deny"


class PolicyKind(Enum):
    """What a policy is attached to."""

    IDENTITY = auto()  # names principals: who may use the identity
    USER = auto()  # names none: what the user may do


@dataclass(frozen=True, slots=True)
class Principal:
    """`AWS`: an account ID, the ARN of an IAM principal, or `*`; `Service`: its host name."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. Of a pair such as `actions` and `not_actions`, one is empty."""

    number: int
    sid: str
    effect: Effect
    principals: tuple[Principal, ...] = ()
    not_principals: tuple[Principal, ...] = ()
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    not_resources: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()

    @property
    def label(self) -> str:
        return self.sid or f"Statement[{self.number}]"


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy. `name` is the name under which it is attached."""

    version: str
    statements: tuple[Statement, ...]
    document_id: str = ""
    name: str = field(default="", compare=False)

    @property
    def has_variables(self) -> bool:
        return self.version != VERSIONS[0]


def parse_policy(text: str, kind: PolicyKind, name: str = "") -> Policy:
    """Return the policy in a JSON document. Raise `PolicyError`."""
    content = _parse_json(text)
    _expect_elements("", content, {"Version", "Id", "Statement"}, {"Statement"})
    version = content.get("Version", VERSIONS[0])
    if version not in VERSIONS:
        raise PolicyError("Version", f"must be one of {', '.join(VERSIONS)}")
    statements = _as_list("Statement", content["Statement"])
    read = tuple(_statement(item, number, kind) for number, item in enumerate(statements, 1))
    _check_sids(read)
    return Policy(version, read, _string("Id", content.get("Id", "")), name)


def _check_sids(statements: Sequence[Statement]) -> None:
    seen: set[str] = set()
    for statement in statements:
        if statement.sid in seen:
            raise PolicyError("Statement", f"two statements have the Sid {statement.sid}")
        if statement.sid:
            seen.add(statement.sid)


def compact(text: str) -> str:
    """Return a JSON document without insignificant white space (RFC 8259 §2)."""
    return _SPACE_OR_STRING.sub(lambda match: match[1] or "", text)


def check_identity_policy(policy: Policy, arn: str) -> None:
    """Raise `PolicyError` unless an identity's policy is for SES and for this identity."""
    for statement in policy.statements:
        place = f"Statement[{statement.number}]"
        for action in (*statement.actions, *statement.not_actions):
            if action != "*" and not action.lower().startswith("ses:"):
                raise PolicyError(f"{place}.Action", f"{action} is no action of SES")
        for resource in (*statement.resources, *statement.not_resources):
            if not matches_text(resource, arn):
                reason = f"{resource} is not the identity that the policy is for, {arn}"
                raise PolicyError(f"{place}.Resource", reason)


# --- elements -----------------------------------------------------------------------------------


def _statement(item: Any, number: int, kind: PolicyKind) -> Statement:
    place = f"Statement[{number}]"
    if not isinstance(item, dict):
        raise PolicyError(place, "must be an object")
    pairs = [("Action", "NotAction"), ("Resource", "NotResource")]
    if kind is PolicyKind.IDENTITY:
        pairs.append(("Principal", "NotPrincipal"))
    elif item.keys() & {"Principal", "NotPrincipal"}:
        raise PolicyError(place, "a user's policy names no Principal: it is the user")
    known = {"Sid", "Effect", "Condition", *(name for pair in pairs for name in pair)}
    _expect_elements(place, item, known, {"Effect"})
    for pair in pairs:
        if len(item.keys() & set(pair)) != 1:
            raise PolicyError(place, f"must have one of {pair[0]} and {pair[1]}")
    return Statement(
        number=number,
        sid=_string(f"{place}.Sid", item.get("Sid", "")),
        effect=_effect(f"{place}.Effect", item["Effect"]),
        principals=_element(place, item, "Principal", _principals),
        not_principals=_element(place, item, "NotPrincipal", _principals),
        actions=_element(place, item, "Action", _actions),
        not_actions=_element(place, item, "NotAction", _actions),
        resources=_element(place, item, "Resource", _resources),
        not_resources=_element(place, item, "NotResource", _resources),
        conditions=_element(place, item, "Condition", _conditions),
    )


def _element(
    place: str,
    item: Mapping[str, Any],
    name: str,
    read: Callable[[str, Any], tuple[T, ...]],
) -> tuple[T, ...]:
    return read(f"{place}.{name}", item[name]) if name in item else ()


def _effect(place: str, value: Any) -> Effect:
    if value not in {Effect.ALLOW.value, Effect.DENY.value}:
        raise PolicyError(place, "must be Allow or Deny")
    return Effect(value)


def _principals(place: str, value: Any) -> tuple[Principal, ...]:
    if value == "*":
        return (Principal("AWS", "*"),)
    if not isinstance(value, dict) or not value:
        raise PolicyError(place, 'must be "*" or an object such as {"AWS": "123456789012"}')
    found: list[Principal] = []
    for kind, entries in value.items():
        if kind not in {"AWS", "Service"}:
            raise PolicyError(f"{place}.{kind}", "is not AWS or Service")
        for entry in _strings(f"{place}.{kind}", entries):
            _check_principal(f"{place}.{kind}", kind, entry)
            found.append(Principal(kind, entry))
    return tuple(found)


def _check_principal(place: str, kind: str, text: str) -> None:
    if kind == "Service":
        if not _SERVICE.fullmatch(text):
            raise PolicyError(
                place, f"'{printable(text)}' is not a service such as ses.amazonaws.com"
            )
    elif text != "*" and not _ACCOUNT.fullmatch(text) and not _IAM_ARN.fullmatch(text):
        raise PolicyError(
            place,
            f"'{printable(text)}' is not a principal: write an account's 12 digits, "
            "arn:aws:iam::ACCOUNT:root, arn:aws:iam::ACCOUNT:user/NAME, or *",
        )


def _actions(place: str, value: Any) -> tuple[str, ...]:
    found = _strings(place, value)
    for action in found:
        if not _ACTION.fullmatch(action):
            raise PolicyError(
                place, f"'{printable(action)}' is not an action such as ses:SendBounce"
            )
    return found


def _resources(place: str, value: Any) -> tuple[str, ...]:
    found = _strings(place, value)
    for resource in found:
        if resource != "*" and not resource.startswith("arn:"):
            raise PolicyError(place, f"'{printable(resource)}' is not an ARN")
    return found


def _conditions(place: str, value: Any) -> tuple[Condition, ...]:
    if not isinstance(value, dict):
        raise PolicyError(place, "must be an object of operators")
    found: list[Condition] = []
    for operator, keys in value.items():
        at = f"{place}.{operator}"
        quantifier, base, if_exists = _operator(at, operator)
        if not isinstance(keys, dict) or not keys:
            raise PolicyError(at, 'must be an object such as {"ses:FromAddress": "a@example.com"}')
        for key, values in keys.items():
            if not _KEY.fullmatch(key):
                raise PolicyError(f"{at}.{key}", "is not a key such as ses:FromAddress")
            texts = _values(f"{at}.{key}", values, base)
            found.append(Condition(base, key.lower(), texts, quantifier, if_exists))
    return tuple(found)


def _operator(place: str, name: str) -> tuple[str, str, bool]:
    """Return the quantifier, the operator, and whether IfExists follows."""
    quantifier, colon, rest = name.rpartition(":")
    if colon and quantifier not in QUANTIFIERS:
        raise PolicyError(place, f"{quantifier} is not one of {', '.join(QUANTIFIERS)}")
    base = rest.removesuffix("IfExists")
    if base not in OPERATORS:
        raise PolicyError(place, f"there is no operator {rest}")
    if base == NULL and (colon or base != rest):
        raise PolicyError(place, "Null stands alone")
    return quantifier, base, base != rest


def _values(place: str, value: Any, operator: str) -> tuple[str, ...]:
    texts = []
    for item in _as_list(place, value):
        if isinstance(item, bool):
            texts.append("true" if item else "false")
        elif isinstance(item, str):  # numbers are read as text
            texts.append(str(item))
        else:
            raise PolicyError(place, "must be a string, a number, a boolean or a list of them")
    for text in texts:
        # The value of a variable depends on the request.
        fault = None if "${" in text else OPERATORS[operator].wrong(text)
        if fault:
            raise PolicyError(place, fault)
    return tuple(texts)


# --- JSON ---------------------------------------------------------------------------------------


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def _parse_json(text: str) -> Mapping[str, Any]:
    octets = len(text.encode("utf-8", "surrogatepass"))
    if octets > MAX_OCTETS:
        raise PolicyError("", f"the policy has {octets} octets, {MAX_OCTETS} are allowed")
    try:
        content = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_no_constant,
        )
    except PolicyError:
        raise
    except (ValueError, RecursionError) as error:
        raise PolicyError("", f"not a JSON document: {error}") from None
    if not isinstance(content, dict):
        raise PolicyError("", "a policy is a JSON object")
    return content


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise PolicyError("", f"'{printable(name)}' stands twice in one object")
        if _has_surrogates(name) or (isinstance(value, str) and _has_surrogates(value)):
            raise PolicyError("", "a text holds half of a surrogate pair")
        found[name] = value
    return found


def _has_surrogates(text: str) -> bool:
    return _SURROGATE.search(text) is not None


def _no_constant(name: str) -> Any:
    raise PolicyError("", f"not a JSON document: {name}")


def _expect_elements(
    place: str, item: Mapping[str, Any], known: set[str], needed: set[str]
) -> None:
    for name in item:
        if name not in known:
            allowed = ", ".join(sorted(known))
            raise PolicyError(place, f"'{printable(name)}' is none of {allowed}")
    for name in sorted(needed - item.keys()):
        raise PolicyError(place, f"{name} is missing")


def _string(place: str, value: Any) -> str:
    if not isinstance(value, str) or isinstance(value, _Number):
        raise PolicyError(place, "must be a string")
    return value


def _strings(place: str, value: Any) -> tuple[str, ...]:
    return tuple(_string(place, item) for item in _as_list(place, value))


def _as_list(place: str, value: Any) -> list[Any]:
    """Return the list; a single value is a list of one."""
    items = value if isinstance(value, list) else [value]
    if not items:
        raise PolicyError(place, "must not be empty")
    if any(isinstance(item, str) and _has_surrogates(item) for item in items):
        raise PolicyError(place, "a text holds half of a surrogate pair")
    return items
