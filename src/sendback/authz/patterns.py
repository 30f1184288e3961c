"""Patterns of policies, with the wildcards `*` and `?` and with policy variables.

A pattern is a tuple of pieces, each a literal text or a wildcard. The value of a variable is
never a wildcard, whatever its characters (IAM User Guide, "Policy variables").

Cost: matching takes one pass over the text and one over the pattern. Between two `*`, a literal is
found by `str.find`; a segment with `?` is tested at all positions of the text at once, as the bits
of an integer. Requests bound the texts, the size of a policy bounds the patterns.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from functools import lru_cache


class Wild(Enum):
    """A wildcard."""

    ANY = auto()  # *, any number of them
    ONE = auto()  # ?


Pattern = tuple[str | Wild, ...]
Context = Mapping[str, Sequence[str]]

_WILDCARDS: Mapping[str, Wild] = {"*": Wild.ANY, "?": Wild.ONE}
_WILDCARD = re.compile(r"(\*+|\?)")
# `${key}`, `${key, 'default'}`, and `${*}`, `${?}`, `${$}` for the characters themselves.
_VARIABLE = re.compile(
    r"\$\{(?:(?P<plain>[*?$])|(?P<key>[A-Za-z0-9:/._@-]++)\s*+(?:,\s*+'(?P<default>[^']*+)')?)\}"
)


def read_pattern(text: str, context: Context, *, variables: bool) -> Pattern | None:
    """Return the pattern of a text in this context; None when a variable in it has no value.

    `variables` is False for policies of version 2008-10-17, in which `${` is literal. A variable
    whose key has several values has no value.
    """
    if not variables or "${" not in text:
        return _wild(text)
    pieces: list[str | Wild] = []
    position = 0
    for match in _VARIABLE.finditer(text):
        value = match["plain"] or _value(match, context)
        if value is None:
            return None
        pieces += _wild(text[position : match.start()])
        pieces.append(value)
        position = match.end()
    return (*pieces, *_wild(text[position:]))


def read_literal(text: str, context: Context, *, variables: bool) -> str | None:
    """Return the text with its variables replaced; None when one of them has no value."""
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
    """Whether the pattern matches the whole text."""
    if _width(pattern) > len(text):
        return False
    first, *others = _segments(pattern)
    if not _fits(first, text, 0):
        return False
    start = _width(first)
    if not others:
        return start == len(text)
    *middle, last = others
    end = len(text) - _width(last)
    if start > end or not _fits(last, text, end):
        return False
    for segment in middle:
        found = _find(segment, text, start, end)
        if found < 0:
            return False
        start = found + _width(segment)
    return True


def matches_text(pattern: str, text: str) -> bool:
    """Whether a pattern without variables matches the whole text."""
    return matches(_wild(pattern), text)


@lru_cache(maxsize=1024)
def _wild(text: str) -> Pattern:
    """Return the pieces of a pattern; several `*` in a row are one."""
    return tuple(_WILDCARDS.get(piece[0], piece) for piece in _WILDCARD.split(text) if piece)


def _width(pieces: Sequence[str | Wild]) -> int:
    """Return the length of the shortest text that the pieces match."""
    return sum(len(piece) if isinstance(piece, str) else piece is Wild.ONE for piece in pieces)


def _segments(pattern: Pattern) -> list[list[str | Wild]]:
    """Return the segments before, between and after the `*`."""
    segments: list[list[str | Wild]] = [[]]
    for piece in pattern:
        if piece is Wild.ANY:
            segments.append([])
        else:
            segments[-1].append(piece)
    return segments


def _fits(segment: Sequence[str | Wild], text: str, start: int) -> bool:
    """Whether the segment matches at this position; the text must be long enough."""
    for piece in segment:
        if isinstance(piece, str):
            if not text.startswith(piece, start):
                return False
            start += len(piece)
        else:
            start += 1
    return True


def _find(segment: Sequence[str | Wild], text: str, start: int, end: int) -> int:
    """Return the first position from `start` at which the segment matches before `end`, or -1."""
    if Wild.ONE not in segment:
        return text.find("".join(map(str, segment)), start, end)
    last = end - _width(segment)
    if last < start:
        return -1
    places = ((1 << (last - start + 1)) - 1) << start
    of_characters, offset = _places(text), 0
    for piece in segment:
        if piece is Wild.ONE:
            offset += 1
            continue
        for character in str(piece):
            places &= of_characters.get(character, 0) >> offset
            offset += 1
        if not places:
            return -1
    return (places & -places).bit_length() - 1


@lru_cache(maxsize=16)
def _places(text: str) -> Mapping[str, int]:
    """Return the positions of each character in the text, as the bits of an integer."""
    places: dict[str, list[int]] = {}
    for place, character in enumerate(text):
        places.setdefault(character, []).append(place)
    return {character: _bits(found, len(text)) for character, found in places.items()}


def _bits(places: Sequence[int], length: int) -> int:
    octets = bytearray(length // 8 + 1)
    for place in places:
        octets[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(octets, "little")


def _value(match: re.Match[str], context: Context) -> str | None:
    values = context.get(match["key"].lower(), ())
    if len(values) == 1:
        return values[0]
    default: str | None = match["default"]
    return default if not values else None
