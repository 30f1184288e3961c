"""Reads fault rules from their JSON form, which the setup file, the API and the CLI share.

A rule that could never take effect is refused with the reason.
"""

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sendback.aws.errors import COMMON_ERRORS
from sendback.aws.model import operation_names, service_model
from sendback.errors import InvalidInputError
from sendback.faults.model import NULL_SENDER, Failure, FaultReply, FaultRule, Network, Point
from sendback.mail.address import AddressError, parse_domain
from sendback.mail.printable import printable
from sendback.receipt.model import ACTION_TYPES

MAX_DELAY = 600.0  # seconds
_MAX_COUNT = 10**9
_MAX_TEXT = 400
_MAX_PATTERN = 320
NOTICE = "Notice"  # the notification of an action's topic
_ACTIONS = (*ACTION_TYPES.values(), NOTICE)
_DEFAULT_TEXT = "Injected fault"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_REPLY = re.compile(r"([45][0-9]{2})(?: ([245]\.[0-9]{1,3}\.[0-9]{1,3}))?(?: (.*))?", re.DOTALL)
_ASCII = re.compile(r"[\x20-\x7e]*")


class FaultError(InvalidInputError):
    """A fault rule that cannot be used; `str` says why."""


@dataclass(frozen=True, slots=True)
class _Use:
    """The selectors and the effects that a point has."""

    selectors: frozenset[str]
    effects: frozenset[str]


_SELECTORS = ("client", "sender", "recipient", "operation", "action")
_EFFECTS = ("reply", "drop", "error", "lost", "failure")
_COUNTS = ("first", "every", "from", "only")
_OTHERS = ("at", "name", "probability", "seed", "delay", "text")
MEMBERS = frozenset({*_SELECTORS, *_EFFECTS, *_COUNTS, *_OTHERS})
_SMTP_EFFECTS = frozenset({"reply", "drop"})
_ADDRESSES = frozenset({"client", "sender", "recipient"})
_USES = {
    Point.CONNECT: _Use(frozenset({"client"}), _SMTP_EFFECTS),
    Point.MAIL: _Use(frozenset({"client", "sender"}), _SMTP_EFFECTS),
    Point.RCPT: _Use(_ADDRESSES, _SMTP_EFFECTS),
    Point.DATA: _Use(_ADDRESSES, _SMTP_EFFECTS),
    Point.END: _Use(_ADDRESSES, _SMTP_EFFECTS),
    Point.API: _Use(frozenset({"client", "operation"}), frozenset({"error", "lost", "drop"})),
    Point.DELIVERY: _Use(frozenset({"sender", "recipient"}), frozenset({"reply", "failure"})),
    Point.ACTION: _Use(frozenset({"sender", "recipient", "action"}), frozenset({"failure"})),
}


def parse_fault(value: Any) -> FaultRule:
    """Return the rule of a JSON object, as `json` or `tomllib` reads it. Raise `FaultError`."""
    if not isinstance(value, Mapping):
        raise FaultError("a fault must be an object with the member at")
    unknown = [str(name) for name in value if name not in MEMBERS]
    if unknown:
        names = ", ".join(sorted(MEMBERS))
        raise FaultError(f"{printable(min(unknown))} is none of {names}")
    point = _point(value.get("at"))
    _check_combination(value, point)
    failure = _choice(value, "failure", tuple(Failure))
    return FaultRule(
        at=point,
        name=_name(value),
        client=_network(value),
        sender=_pattern(value, "sender"),
        recipient=_pattern(value, "recipient"),
        operation=_operation(value),
        action=_choice(value, "action", _ACTIONS),
        first=_count(value, "first"),
        every=_count(value, "every"),
        start=_count(value, "from"),
        only=_count(value, "only"),
        probability=_probability(value),
        seed=_seed(value),
        delay=_delay(value),
        reply=_reply(value),
        drop=_flag(value, "drop"),
        error=_error(value),
        lost=_flag(value, "lost"),
        failure=Failure(failure) if failure else None,
        text=_text(value),
    )


def _point(value: Any) -> Point:
    try:
        return Point(value)
    except ValueError:
        given = "at is missing" if value is None else f"at: {_shown(value)} is no point"
        raise FaultError(f"{given}: it is one of {', '.join(Point)}") from None


def _check_combination(value: Mapping[str, Any], point: Point) -> None:
    use = _USES[point]
    _check_use(value, point, "selector", _SELECTORS, use.selectors)
    _check_use(value, point, "effect", _EFFECTS, use.effects)
    effects = [name for name in _EFFECTS if value.get(name, False) is not False]
    if len(effects) > 1:
        raise FaultError(f"a fault has one effect, not both {effects[0]} and {effects[1]}")
    if not effects and not value.get("delay"):
        allowed = ", ".join(sorted({"delay", *use.effects}))
        raise FaultError(f"the fault has no effect: at {point} give one of {allowed}")
    counts = [name for name in _COUNTS if name in value]
    if len(counts) > 1:
        raise FaultError(f"a fault has one count, not both {counts[0]} and {counts[1]}")
    if "text" in value and not {"error", "failure"} & set(effects):
        raise FaultError("text belongs to error or failure; the text of a reply is part of reply")


def _check_use(
    value: Mapping[str, Any],
    point: Point,
    kind: str,
    names: tuple[str, ...],
    allowed: frozenset[str],
) -> None:
    for name in names:
        if name in value and name not in allowed:
            choice = ", ".join(each for each in names if each in allowed)
            raise FaultError(
                f"the {kind} {name} can never apply at {point}: allowed there: {choice}"
            )


def _string(value: Mapping[str, Any], name: str) -> str | None:
    found = value.get(name)
    if found is not None and not isinstance(found, str):
        raise FaultError(f"{name} must be a string")
    return found


def _flag(value: Mapping[str, Any], name: str) -> bool:
    found = value.get(name, False)
    if not isinstance(found, bool):
        raise FaultError(f"{name} must be true or false")
    return found


def _number(value: Mapping[str, Any], name: str, default: float) -> float:
    found = value.get(name, default)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise FaultError(f"{name} must be a number")
    try:
        return float(found)
    except OverflowError:
        raise FaultError(f"{name} must be a number of at most 64 bits") from None


def _name(value: Mapping[str, Any]) -> str:
    name = _string(value, "name") or ""
    if name and not _NAME.fullmatch(name):
        raise FaultError(
            f"name: {_shown(name)} must be up to 64 letters, digits, dots, hyphens and underscores"
        )
    return name


def _network(value: Mapping[str, Any]) -> Network | None:
    text = _string(value, "client")
    if text is None:
        return None
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise FaultError(
            f"client: {_shown(text)} is no IP address or network, such as 192.0.2.0/24"
        ) from None


def _pattern(value: Mapping[str, Any], name: str) -> str | None:
    text = _string(value, name)
    if text is None or (text == NULL_SENDER and name == "sender"):
        return text
    domain = text.rpartition("@")[2]
    if not domain or len(text) > _MAX_PATTERN or not text.isprintable() or text == NULL_SENDER:
        raise FaultError(
            f"{name}: {_shown(text)} can never match: write an address or a domain, "
            "with * and ? as wildcards"
        )
    if "*" in domain or "?" in domain:
        return text
    try:
        return text[: len(text) - len(domain)] + parse_domain(domain)
    except AddressError as error:
        raise FaultError(f"{name}: {_shown(text)} can never match: {error}") from None


def _operation(value: Mapping[str, Any]) -> str | None:
    name = _string(value, "operation")
    if name is not None and name not in operation_names():
        raise FaultError(f"operation: {_shown(name)} is no operation of the SES API")
    return name


def _choice(value: Mapping[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    found = _string(value, name)
    if found is not None and found not in allowed:
        raise FaultError(f"{name}: {_shown(found)} is none of {', '.join(allowed)}")
    return found


def _count(value: Mapping[str, Any], name: str) -> int | None:
    found = value.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int):
        raise FaultError(f"{name} must be a whole number")
    if not 1 <= found <= _MAX_COUNT:
        reason = "events are counted from 1" if found < 1 else f"it is at most {_MAX_COUNT}"
        raise FaultError(f"{name}: {found} can never match: {reason}")
    return found


def _probability(value: Mapping[str, Any]) -> float:
    found = _number(value, "probability", 1.0)
    if not 0 < found <= 1:
        raise FaultError(f"probability: {found:g} must be more than 0 and at most 1")
    return found


def _seed(value: Mapping[str, Any]) -> int:
    found = value.get("seed", 0)
    if isinstance(found, bool) or not isinstance(found, int) or abs(found) >= 2**63:
        raise FaultError("seed must be a whole number of at most 63 bits")
    return found


def _delay(value: Mapping[str, Any]) -> float:
    found = _number(value, "delay", 0.0)
    if not 0 <= found <= MAX_DELAY or math.isnan(found):
        raise FaultError(f"delay: {found:g} must be 0 to {MAX_DELAY:g} seconds")
    return found


def _reply(value: Mapping[str, Any]) -> FaultReply | None:
    text = _string(value, "reply")
    if text is None:
        return None
    found = _REPLY.fullmatch(text)
    if found is None:
        raise FaultError(
            f"reply: {_shown(text)} must be a code from 400 to 599, an enhanced code if any and "
            "a text, such as 451 4.7.1 Try again later"
        )
    code, status, words = found.groups()
    if status is not None and status[0] != code[0]:
        raise FaultError(f"reply: {status} does not belong to {code} (RFC 3463: same first digit)")
    return FaultReply(int(code), status or f"{code[0]}.0.0", _checked_text("reply", words))


def _error(value: Mapping[str, Any]) -> str | None:
    code = _string(value, "error")
    if code is not None and code not in COMMON_ERRORS and code not in _error_codes():
        raise FaultError(f"error: {_shown(code)} is no error code of SES")
    return code


def _error_codes() -> frozenset[str]:
    """Return the codes of the errors that operations have."""
    shapes = service_model().error_shapes
    return frozenset(str(shape.error_code or shape.name) for shape in shapes)


def _text(value: Mapping[str, Any]) -> str | None:
    text = _string(value, "text")
    return None if text is None else _checked_text("text", text)


def _checked_text(name: str, text: str | None) -> str:
    found = text or _DEFAULT_TEXT
    if len(found) > _MAX_TEXT or not _ASCII.fullmatch(found):
        raise FaultError(f"{name} must be one line of up to {_MAX_TEXT} printable ASCII characters")
    return found


def _shown(value: Any) -> str:
    """Return a value from outside as text; one that is no text may be nested deeply."""
    return repr(printable(value)) if isinstance(value, str) else f"a {type(value).__name__}"
