"""Patterns of policies: `*` and `?`, and the policy variables that may stand in them.

A pattern is a tuple of pieces, each one character or a wildcard. What a variable stands for is
never a wildcard, whatever characters it holds (IAM User Guide, "Policy variables").
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto


class Wild(Enum):
    """A piece that stands for other characters."""

    ANY = auto()  # *, any number of them
    ONE = auto()  # ?


Pattern = tuple[str | Wild, ...]
Context = Mapping[str, Sequence[str]]

_WILDCARDS: Mapping[str, Wild] = {"*": Wild.ANY, "?": Wild.ONE}
# `${key}`, `${key, 'default'}`, and `${*}`, `${?}`, `${$}` for the characters themselves.
_VARIABLE = re.compile(
    r"\$\{(?:(?P<plain>[*?$])|(?P<key>[A-Za-z0-9:/._@-]+)\s*(?:,\s*'(?P<default>[^']*)')?)\}"
)


def read_pattern(text: str, context: Context, *, variables: bool) -> Pattern | None:
    """The pattern that the text is in this context; None when a variable in it has no value.

    `variables` is off for policies of version 2008-10-17, in which `${` means itself. A key with
    several values cannot be a variable.
    """
    if not variables or "${" not in text:
        return _wild(text)
    pieces: list[str | Wild] = []
    position = 0
    for match in _VARIABLE.finditer(text):
        value = match["plain"] or _value(match, context)
        if value is None:
            return None
        pieces += [*_wild(text[position : match.start()]), *value]
        position = match.end()
    return (*pieces, *_wild(text[position:]))


def read_literal(text: str, context: Context, *, variables: bool) -> str | None:
    """The same for operators that know no wildcards: the text that it is."""
    if not variables or "${" not in text:
        return text
    unknown = False

    def value(match: re.Match[str]) -> str:
        nonlocal unknown
        found = match["plain"] or _value(match, context)
        unknown = unknown or found is None
        return found or ""

    replaced = _VARIABLE.sub(value, text)
    return None if unknown else replaced


def matches(pattern: Pattern, text: str) -> bool:
    """Whether the whole text is what the pattern says.

    Walks once, going back to the last `*` only: no text makes it slower than their product.
    """
    at = piece = 0
    star: int | None = None
    resume = 0
    while at < len(text):
        current = pattern[piece] if piece < len(pattern) else None
        if current is Wild.ANY:
            star, resume = piece, at
            piece += 1
        elif current is Wild.ONE or current == text[at]:
            at, piece = at + 1, piece + 1
        elif star is not None:
            resume += 1
            at, piece = resume, star + 1
        else:
            return False
    return all(rest is Wild.ANY for rest in pattern[piece:])


def matches_text(pattern: str, text: str) -> bool:
    """For patterns without variables."""
    return matches(_wild(pattern), text)


def _wild(text: str) -> Pattern:
    return tuple(_WILDCARDS.get(character, character) for character in text)


def _value(match: re.Match[str], context: Context) -> str | None:
    values = context.get(match["key"].lower(), ())
    if len(values) == 1:
        return values[0]
    default: str | None = match["default"]
    return default if not values else None
