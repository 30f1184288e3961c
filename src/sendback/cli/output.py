"""Print tables, fields and JSON.

Untrusted values (addresses, subjects, replies) are printed as text: control characters are escaped,
and markup is not interpreted.
"""

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import typer

from sendback.cli import tables
from sendback.mail import printable as characters

_MIN_WIDTH = 20
_UNBOUNDED = 100_000  # columns, for output that is not a terminal


def print_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    drop: Sequence[str] = (),
    whole: bool = False,
) -> None:
    """Print a table with these columns, or all fields of the rows as JSON.

    On a narrow terminal `drop` are the columns that are left out first, in this order, then the
    others from the right. With `whole` nothing is shortened: a table that is too wide is printed as
    one block of lines for each row.
    """
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        say("None.")
        return
    table = [_column(rows, name, _rank(name, columns, drop)) for name in columns]
    width = terminal_width()
    if whole and not tables.fits(table, width):
        for row in rows:
            print_fields({name: row.get(name) for name in columns}, as_json=False)
            say("")
        return
    say("\n".join(tables.layout(table, width)))


def terminal_width() -> int:
    """Return the columns of the terminal. Output that is not a terminal has no limit."""
    if sys.stdout.isatty():
        return max(_MIN_WIDTH, shutil.get_terminal_size().columns)
    return _UNBOUNDED


def _column(rows: Sequence[Mapping[str, Any]], name: str, rank: int) -> tables.Column:
    values = [row.get(name) for row in rows]
    cells = tuple(map(printable, values))
    return tables.Column(name.replace("_", " "), _kind(name, values), cells, rank)


def _kind(name: str, values: Sequence[Any]) -> tables.Kind:
    if name.endswith("_id"):
        return tables.Kind.ID
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, datetime) for value in given):
        return tables.Kind.DATE
    if given and all(isinstance(value, int) and not isinstance(value, bool) for value in given):
        return tables.Kind.NUMBER
    return tables.Kind.TEXT


def _rank(name: str, columns: Sequence[str], drop: Sequence[str]) -> int:
    if name in drop:
        return len(columns) + len(drop) - drop.index(name)
    return columns.index(name)


def print_fields(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one line for each field that is not absent, or all as JSON."""
    if as_json:
        print_json(fields)
        return
    texts = {name: printable(value) for name, value in fields.items()}
    shown = {name: text for name, text in texts.items() if text}
    width = max(map(len, shown), default=0)
    for name, text in shown.items():
        say(f"{name.replace('_', ' '):{width}}  {text}")


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
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return tables.date_text(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(printable, value)))
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
