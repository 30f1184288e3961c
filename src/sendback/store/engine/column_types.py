"""Text columns that refuse what no other database could hold: the second line behind the edges.

PostgreSQL's text cannot hold NUL, and an error of the database would fail the whole group of units
that share a transaction. So the value is refused before it reaches any database, as the unit's own
error. What a partner has said is different: its record must be written whatever is in it, so there
NUL is replaced (`without_nul`).

Columns that only hold what this program has made or parsed (IDs, JSON, domains) need no guard, and
the queues' tables, which each mail writes, have none.
"""

from typing import Any

from sqlalchemy import Dialect, String, Text
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import TypeDecorator, TypeEngine


class InvalidTextError(DontWrapMixin, ValueError):
    """A text with NUL in it, which no column takes."""


class _Guarded(TypeDecorator[str]):
    impl: TypeEngine[Any] | type[TypeEngine[Any]] = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        if value is not None and "\0" in value:
            raise InvalidTextError(f"a text with NUL cannot be stored: {value[:40]!r}")
        return value


class GuardedString(_Guarded):
    """`String(length)` without NUL."""

    impl = String
    cache_ok = True


class GuardedText(_Guarded):
    """`Text` without NUL."""

    impl = Text
    cache_ok = True


def without_nul(text: str) -> str:
    """Replace NUL by U+FFFD."""
    return text.replace("\0", "\ufffd")
