"""Rendering of the templates."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sendback.mail.printable import printable

_KIB = 1024


@cache
def environment() -> Environment:
    """Return the environment of the templates: everything is escaped, nothing may be undefined."""
    made = Environment(
        loader=PackageLoader("sendback.console", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    made.filters |= {
        "when": when,
        "size": size,
        "safe_text": safe_text,
        "visible": visible,
        "twice": lambda text: (text, text),
        "segment": lambda text: quote(text, safe=""),
        "duration": duration,
    }
    made.tests |= {"datetime": lambda value: isinstance(value, datetime)}
    return made


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return a template with its context."""
    return environment().get_template(template).render(context)


def safe_text(text: str | None, limit: int | None = 500) -> str:
    """Return text of a stranger with its invisible and bidirectional characters escaped."""
    return "" if text is None else printable(text, limit)


def visible(text: str) -> str:
    """Return lines of text of a stranger with all invisible characters but tabs escaped."""
    return "\n".join(
        "\t".join(printable(piece, None) for piece in line.split("\t")) for line in text.split("\n")
    )


def when(date: datetime | None, form: str = "time") -> Markup:
    """Return a date as `<time>`, which the page shows in the reader's zone.

    `form` is `time` (with the day when it is another one), `date` or `full`.
    """
    if date is None:
        return Markup("")
    date = date.astimezone(UTC)
    shown = {"time": f"{date:%H:%M:%S}", "date": f"{date:%Y-%m-%d}"}.get(
        form, f"{date:%Y-%m-%d %H:%M:%S}"
    )
    return Markup('<time datetime="{}" data-form="{}" title="{}">{}</time>').format(
        date.isoformat(timespec="milliseconds"), form, f"{date:%Y-%m-%d %H:%M:%S} UTC", shown
    )


def size(octets: int) -> str:
    """Return a size in words: 512 octets, 18 KB, 3.4 MB."""
    if octets < _KIB:
        return f"{octets} octets"
    if octets < _KIB * _KIB:
        return f"{octets / _KIB:.0f} KB"
    return f"{octets / _KIB / _KIB:.1f} MB"


def duration(milliseconds: float) -> str:
    """Return a duration in words: 4 ms, 1.3 s, 2 min, 3 h, 5 days."""
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    for limit, unit, form in ((60, 1, ".1f"), (3600, 60, ".0f"), (172_800, 3600, ".0f")):
        if seconds < limit:
            name = {1: "s", 60: "min", 3600: "h"}[unit]
            return f"{seconds / unit:{form}} {name}"
    return f"{seconds / 86_400:.0f} days"
