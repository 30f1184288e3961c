"""Patterns of policies: `*` and `?`, and the policy variables that may stand in them.

A pattern is a tuple of pieces, each a literal text or a wildcard. What a variable stands for is
never a wildcard, whatever characters it holds (IAM User Guide, "Policy variables").

Cost: matching walks once along the text and once along the pattern. Between two `*`, a literal is
found by `str.find`; a segment with `?` is tried at all places of the text at once, as the bits of
an integer. Texts come from requests and are bounded there, patterns by the size of a policy.
"""

import re
from collections.abc import Mapping, Sequence
from enum import Enum, auto
from functools import lru_cache


class Wild(Enum):
    """A piece that stands for other characters."""

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
        pieces += _wild(text[position : match.start()])
        pieces.append(value)
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
    """Whether the whole text is what the pattern says."""
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
    """For patterns without variables."""
    return matches(_wild(pattern), text)


@lru_cache(maxsize=1024)
def _wild(text: str) -> Pattern:
    """Cut at the wildcards; several `*` are one."""
    return tuple(_WILDCARDS.get(piece[0], piece) for piece in _WILDCARD.split(text) if piece)


def _width(pieces: Sequence[str | Wild]) -> int:
    """The length of the shortest text that they match."""
    return sum(len(piece) if isinstance(piece, str) else piece is Wild.ONE for piece in pieces)


def _segments(pattern: Pattern) -> list[list[str | Wild]]:
    """What stands before, between and behind the `*`."""
    segments: list[list[str | Wild]] = [[]]
    for piece in pattern:
        if piece is Wild.ANY:
            segments.append([])
        else:
            segments[-1].append(piece)
    return segments


def _fits(segment: Sequence[str | Wild], text: str, start: int) -> bool:
    """Whether the segment matches at this place; the text is long enough."""
    for piece in segment:
        if isinstance(piece, str):
            if not text.startswith(piece, start):
                return False
            start += len(piece)
        else:
            start += 1
    return True


def _find(segment: Sequence[str | Wild], text: str, start: int, end: int) -> int:
    """The first place from `start` at which the segment matches before `end`; -1: none."""
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
    """The places of each character in the text, as the bits of an integer."""
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
