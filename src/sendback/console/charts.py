"""Bar charts as shapes, which a template draws as SVG. Pure.

A bar is a stack of the series' numbers in one period. The axis begins at zero and ends at an even
number, so that its middle is a whole one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

WIDTH, HEIGHT = 320, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 6, 8, 22
_GAP = 0.2  # of the width of a bar
_SCALE = (2, 4, 6, 8, 10)


@dataclass(frozen=True, slots=True)
class Series:
    """A row of numbers, one a period; `tone` is its colour: ok, warn, bad, info or empty."""

    name: str
    tone: str
    numbers: Sequence[int]

    @property
    def total(self) -> int:
        return sum(self.numbers)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a bar."""

    x: float
    y: float
    width: float
    height: float
    tone: str


@dataclass(frozen=True, slots=True)
class Bar:
    """The bar of a period with its figures in words."""

    text: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Label:
    """A label of an axis: `anchor` as in SVG's text-anchor."""

    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: `name` and `text` describe it for who does not see it."""

    name: str
    text: str
    series: tuple[Series, ...]
    bars: tuple[Bar, ...]
    labels: tuple[Label, ...]
    lines: tuple[float, ...]  # the heights of the horizontal lines
    begins: tuple[datetime, ...]

    @property
    def left(self) -> int:
        return _LEFT

    @property
    def right(self) -> int:
        return WIDTH - _RIGHT


def chart(
    name: str, series: Sequence[Series], begins: Sequence[datetime], form: str, ends: Sequence[str]
) -> Chart:
    """Return the chart of series in periods that begin then.

    `form` is that of a date for `strftime`; `ends` are the labels of the time axis, from left to
    right.
    """
    tops = [sum(numbers) for numbers in zip(*(entry.numbers for entry in series), strict=True)]
    most = scale(max(tops, default=0))
    floor = HEIGHT - _BOTTOM
    step = (WIDTH - _LEFT - _RIGHT) / max(len(begins), 1)
    bars = []
    for index, date in enumerate(begins):
        blocks, y = [], float(floor)
        for entry in series:
            height = entry.numbers[index] / most * (floor - _TOP)
            if height:
                y -= height
                x = _LEFT + step * (index + _GAP / 2)
                shape = (round(x, 2), round(y, 2), round(step * (1 - _GAP), 2), round(height, 2))
                blocks.append(Block(*shape, entry.tone))
        if blocks:
            bars.append(Bar(f"{date:{form}}: {_words(series, index)}", tuple(blocks)))
    heights = (float(_TOP), (_TOP + floor) / 2, float(floor))
    labels = [
        Label(_LEFT - 4, y + 4, f"{number:,}", "end")
        for y, number in zip(heights, (most, most // 2, 0), strict=True)
    ]
    for index, text in enumerate(ends):
        share = index / max(len(ends) - 1, 1)
        anchor = {0.0: "start", 1.0: "end"}.get(share, "middle")
        x = _LEFT + share * (WIDTH - _LEFT - _RIGHT)
        labels.append(Label(round(x, 2), HEIGHT - 6, text, anchor))
    totals = ", ".join(f"{entry.total:,} {entry.name}" for entry in series)
    text = f"{totals}. At most {max(tops, default=0):,} in one bar."
    return Chart(name, text, tuple(series), tuple(bars), tuple(labels), heights, tuple(begins))


def scale(most: int) -> int:
    """Return the end of an axis for numbers up to `most`: 2, 4, 6, 8, 10, 20, 40, …"""
    unit = 1
    while True:
        for number in _SCALE:
            if number * unit >= most:
                return number * unit
        unit *= 10


def _words(series: Sequence[Series], index: int) -> str:
    return ", ".join(f"{entry.numbers[index]:,} {entry.name}" for entry in series)
