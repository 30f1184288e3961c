"""Print tables, fields and JSON.

Untrusted values (addresses, subjects, replies) are printed as text: control characters are escaped,
and markup is not interpreted.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import typer

from sendback.mail import printable as characters

_SHORT = 19  # the width of a date
_NARROWEST = 8
_GAP = 3


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print a table with these columns, or all fields of the rows as JSON."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        say("None.")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Output that is not a terminal would be folded at 80 columns.
    console = Console(width=None if sys.stdout.isatty() else 240)
    cells = [[printable(row.get(column)) for column in columns] for row in rows]
    whole = _kept_whole(columns, cells, console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column in whole)
    for line in cells:
        table.add_row(*map(Text, line))
    console.print(table)


def _kept_whole(
    columns: Sequence[str], cells: Sequence[Sequence[str]], width: int
) -> frozenset[str]:
    """Return the columns that are not folded: IDs, so that they can be copied, and short columns.

    Short columns are included only while the others keep `_NARROWEST` characters each.
    """
    widths = {
        column: max(len(column), *(len(line[number]) for line in cells))
        for number, column in enumerate(columns)
    }
    whole = {column for column in columns if column.endswith("_id")}
    for column in sorted(columns, key=lambda name: widths[name]):
        taken = sum(widths[name] + _GAP for name in whole | {column})
        folded = len(columns) - len(whole | {column})
        if widths[column] <= _SHORT and taken + folded * _NARROWEST <= width:
            whole.add(column)
    return frozenset(whole)


def print_fields(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one line for each field, or all as JSON."""
    if as_json:
        print_json(fields)
        return
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        say(f"{name.replace('_', ' '):{width}}  {printable(value)}")


def print_json(value: Any) -> None:
    """Print indented JSON: dates in ISO 8601, invisible characters as escapes."""
    text = json.dumps(value, indent=2, default=_json, ensure_ascii=False)
    typer.echo("\n".join(_HIDDEN.sub(_json_escape, line) for line in text.split("\n")))


def say(text: str, *, err: bool = False) -> None:
    """Print text, with invisible characters escaped."""
    lines = (characters.printable(line, limit=None) for line in text.split("\n"))
    typer.echo("\n".join(lines), err=err)


def write_octets(content: bytes) -> None:
    """Write octets unchanged, or to a terminal as text with invisible characters escaped."""
    if sys.stdout.isatty():
        say(content.decode("utf-8", "replace").replace("\r\n", "\n").rstrip("\n"))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def printable(value: Any) -> str:
    """Return the value as one line of text, with invisible characters escaped."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, (list, tuple)):
        return ", ".join(map(printable, value))
    return characters.printable(str(value), limit=None)


def _json(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


# Only what is not ASCII: json escapes the controls below U+0020 itself.
_HIDDEN = re.compile(r"[^ -~]")
_LAST_OF_BMP = 0xFFFF


def _json_escape(match: re.Match[str]) -> str:
    character = match[0]
    if characters.is_visible(character):
        return character
    code = ord(character)
    if code <= _LAST_OF_BMP:
        return f"\\u{code:04x}"
    code -= _LAST_OF_BMP + 1
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def print_progress(total: int) -> None:
    """Print how many are done so far, to standard error."""
    typer.echo(f"{total} so far", err=True)


def print_changed(ids: Sequence[str], count: int, done: str, unchanged: str) -> None:
    """Print how many messages were changed to the state `done`.

    For a single one that was not, `unchanged` is the reason.
    """
    if len(ids) == 1:
        typer.echo(f"{ids[0]} is {done}." if count else f"{ids[0]} is unchanged: {unchanged}.")
    else:
        typer.echo(f"{count} {'message is' if count == 1 else 'messages are'} {done}.")
