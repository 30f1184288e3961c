"""The setup of an account as the TOML that `sendback rules apply` reads. Pure."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sendback.receipt.filters import IpFilter
from sendback.receipt.model import Rules
from sendback.receipt.shapes import rule_to_shape
from sendback.service.rules.setup_file import TABLES


def setup_text(
    *,
    identities: Sequence[str],
    rule_sets: Mapping[str, Rules],
    active_rule_set: str | None,
    filters: Sequence[IpFilter],
    targets: Mapping[tuple[str, str], str],
) -> str:
    """Return the text of a setup file; paths in `targets` are absolute."""
    lines = [f"identities = {_value(list(identities))}"]
    if active_rule_set is not None:
        lines.append(f"active_rule_set = {_value(active_rule_set)}")
    for kind, table in TABLES.items():
        known = {name: target for (of, name), target in targets.items() if of == kind}
        if known:
            lines += ["", f"[{table}]", *(f"{_key(n)} = {_value(t)}" for n, t in known.items())]
    for entry in filters:
        members = {"Name": entry.name, "Policy": entry.policy.value, "Cidr": entry.cidr}
        lines += ["", "[[filters]]", *(f"{n} = {_value(v)}" for n, v in members.items())]
    for name, rules in rule_sets.items():
        if not rules:
            lines += ["", f"[rule_sets.{_key(name)}]", "rules = []"]
        for rule in rules:
            lines += ["", f"[[rule_sets.{_key(name)}.rules]]"]
            lines += [
                f"{n} = {_value(v)}" for n, v in rule_to_shape(rule).items() if n != "Actions"
            ]
            actions = rule_to_shape(rule)["Actions"]
            lines += ["Actions = [", *(f"  {_value(action)}," for action in actions), "]"]
    return "\n".join(lines) + "\n"


def _key(text: str) -> str:
    is_bare = text.isascii() and text.replace("-", "").replace("_", "").isalnum()
    return text if is_bare else _string(text)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(member)}" for name, member in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, Sequence):
        return f"[{', '.join(_value(item) for item in value)}]"
    return str(value)


def _string(text: str) -> str:
    """Return a basic string of TOML: JSON's, with DEL escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
