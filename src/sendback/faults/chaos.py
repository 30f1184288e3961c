"""Mailpit's chaos triggers as fault rules (Mailpit API v1: GET and PUT /api/v1/chaos).

The form is `{"Sender": {"ErrorCode": 451, "Probability": 20}, …}`; a probability is a percentage.
The trigger `Authentication` can have the probability 0 only: the SMTP server has no AUTH.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sendback.faults.model import FaultRule, Point
from sendback.faults.rules import FaultError, parse_fault
from sendback.mail.printable import printable

_AUTHENTICATION = "Authentication"
_POINTS = {"Sender": Point.MAIL, "Recipient": Point.RCPT}
_NAMES = {trigger: f"chaos-{trigger.lower()}" for trigger in _POINTS}
NAMES = frozenset(_NAMES.values())
_DEFAULT_CODE = 451  # Mailpit's
_CODES = range(400, 600)
_PERCENT = 100


def parse_chaos(value: Any) -> tuple[FaultRule, ...]:
    """Return the rules of the triggers; a trigger that is missing is off. Raise `FaultError`."""
    if not isinstance(value, Mapping):
        raise FaultError("chaos must be an object of triggers")
    unknown = [str(name) for name in value if name not in {*_POINTS, _AUTHENTICATION}]
    if unknown:
        names = ", ".join((*_POINTS, _AUTHENTICATION))
        raise FaultError(f"{printable(min(unknown))} is none of {names}")
    if _trigger(value, _AUTHENTICATION)[1]:
        raise FaultError("Authentication can never fail: the SMTP server offers no AUTH")
    triggers = {name: _trigger(value, name) for name in _POINTS}
    return tuple(
        parse_fault(
            {
                "at": _POINTS[name].value,
                "name": _NAMES[name],
                "reply": str(code),
                "probability": percent / _PERCENT,
            }
        )
        for name, (code, percent) in triggers.items()
        if percent
    )


def to_chaos(rules: Sequence[FaultRule]) -> dict[str, dict[str, int]]:
    """Return all triggers, as `parse_chaos` has set them."""
    found = {rule.name: rule for rule in rules}
    return {
        name: _to_trigger(found.get(_NAMES.get(name, "")))
        for name in ("Sender", "Recipient", _AUTHENTICATION)
    }


def _trigger(value: Mapping[str, Any], name: str) -> tuple[int, int]:
    trigger = value.get(name, {})
    if not isinstance(trigger, Mapping) or trigger.keys() - {"ErrorCode", "Probability"}:
        raise FaultError(f"{name} must have ErrorCode and Probability")
    code = trigger.get("ErrorCode", _DEFAULT_CODE)
    percent = trigger.get("Probability", 0)
    if type(code) is not int or code not in _CODES:
        raise FaultError(f"{name}: ErrorCode must be 400 to 599")
    if type(percent) is not int or not 0 <= percent <= _PERCENT:
        raise FaultError(f"{name}: Probability must be 0 to 100")
    return code, percent


def _to_trigger(rule: FaultRule | None) -> dict[str, int]:
    if rule is None or rule.reply is None:
        return {"ErrorCode": _DEFAULT_CODE, "Probability": 0}
    return {"ErrorCode": rule.reply.code, "Probability": round(rule.probability * _PERCENT)}
