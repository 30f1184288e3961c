"""Layout of tables for a terminal of any width. No I/O.

Dates and IDs are never broken. A table that is too wide for the terminal gets narrower in these
steps, until it fits:

1. dates are written without year and seconds;
2. IDs are shortened, with `…`, to prefixes that distinguish them and that commands accept;
3. long texts are cut, with `…`, the longest first, but not below `_MIN_TEXT` characters;
4. columns are left out, those first that the caller names as the least important; the line below
   the table names them.
"""

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto

_GAP = 2
_MIN_TEXT = 20
_MIN_PREFIX = 12
ELLIPSIS = "…"


class Kind(Enum):
    """What a column holds, and so how it gets narrower."""

    TEXT = auto()
    ID = auto()
    DATE = auto()
    NUMBER = auto()


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, its kind, its cells, and its rank: columns of a high rank go first."""

    title: str
    kind: Kind
    cells: tuple[str, ...]
    rank: int

    @property
    def width(self) -> int:
        return max(map(display_width, (self.title, *self.cells)))


def display_width(text: str) -> int:
    """Return the number of terminal cells of a text (UAX #11: wide characters have two)."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def layout(columns: Sequence[Column], width: int) -> list[str]:
    """Return the lines of the table: titles, a rule, the rows, and the titles left out."""
    shown, left_out = _fitted(list(columns), width)
    widths = [column.width for column in shown]
    lines = [_line(shown, widths, [column.title for column in shown])]
    lines.append("─" * min(width, sum(widths) + _GAP * (len(widths) - 1)))
    rows = zip(*(column.cells for column in shown), strict=True)
    lines += [_line(shown, widths, row) for row in rows]
    if left_out:
        names = ", ".join(column.title for column in left_out)
        lines += ["", *_wrapped(f"Not shown, as the terminal is narrow: {names}.", width)]
    return lines


def _fitted(columns: list[Column], width: int) -> tuple[list[Column], list[Column]]:
    """Return the columns to show, narrowed, and those that are left out."""
    if fits(columns, width):
        return columns, []
    left_out: list[Column] = []
    short = [_short_date(column) for column in columns]
    while True:
        narrowed = short
        if not fits(short, width):
            narrowed = _cut([_short_id(column) for column in short], width)
        if fits(narrowed, width) or len(short) == 1:
            order = [column.title for column in columns]
            return narrowed, sorted(left_out, key=lambda column: order.index(column.title))
        last = max(short, key=lambda column: column.rank)
        short.remove(last)
        left_out.append(last)


def fits(columns: Sequence[Column], width: int) -> bool:
    """Return whether the table needs no narrowing."""
    return sum(column.width for column in columns) + _GAP * (len(columns) - 1) <= width


def _short_date(column: Column) -> Column:
    if column.kind is not Kind.DATE:
        return column
    return replace(column, cells=tuple(cell[5:16] for cell in column.cells))


def _short_id(column: Column) -> Column:
    """Shorten IDs to a prefix that distinguishes them; equal IDs remain equal."""
    if column.kind is not Kind.ID:
        return column
    length = _distinct_length(sorted(set(column.cells)))
    cells = (cell if len(cell) <= length + 1 else cell[:length] + ELLIPSIS for cell in column.cells)
    return replace(column, cells=tuple(cells))


def _distinct_length(texts: Sequence[str]) -> int:
    """Return the length of prefix by which sorted, different texts differ."""
    longest = 0
    for one, two in itertools.pairwise(texts):
        pairs = enumerate(zip(one, two, strict=False))
        longest = max(longest, next((i for i, (a, b) in pairs if a != b), len(one)))
    return max(longest + 1, _MIN_PREFIX)


def _cut(columns: Sequence[Column], width: int) -> list[Column]:
    """Cut the widest texts until the table fits, or all are at the minimum."""
    fixed = sum(column.width for column in columns if column.kind is not Kind.TEXT)
    free = width - fixed - _GAP * (len(columns) - 1)
    texts = sorted(column.width for column in columns if column.kind is Kind.TEXT)
    limit = max(_MIN_TEXT, _share(texts, free))
    return [_cut_column(column, limit) for column in columns]


def _share(widths: Sequence[int], free: int) -> int:
    """Return the width to which sorted columns must be cut to have `free` cells in all."""
    for number, width in enumerate(widths):
        share = free // (len(widths) - number)
        if width > share:
            return share
        free -= width
    return widths[-1] if widths else 0


def _cut_column(column: Column, limit: int) -> Column:
    if column.kind is not Kind.TEXT:
        return column
    return replace(column, cells=tuple(cut(cell, limit) for cell in column.cells))


def cut(text: str, limit: int) -> str:
    """Return the text in at most `limit` terminal cells, with `…` if it was cut."""
    if display_width(text) <= limit:
        return text
    taken, used = [], 1
    for character in text:
        used += _cells_of(character)
        if used > limit:
            break
        taken.append(character)
    return "".join(taken) + ELLIPSIS


def _line(columns: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    padded = []
    for column, width, cell in zip(columns, widths, cells, strict=True):
        fill = " " * (width - display_width(cell))
        padded.append(fill + cell if column.kind is Kind.NUMBER else cell + fill)
    return (" " * _GAP).join(padded).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


def date_text(moment: datetime) -> str:
    """Return a date as tables show it, in UTC."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")
