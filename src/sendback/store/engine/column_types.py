"""Text columns that refuse NUL: the second check, after the one at the edges.

PostgreSQL's text cannot hold NUL, and a database error would fail all units that share the
transaction. Refusing the value before it reaches the database fails only its own unit. The reply
of a remote server must be recorded whatever it contains, so there NUL is replaced (`without_nul`).

Columns that only hold what this program has made or parsed (IDs, JSON, domains) need no check. The
tables of the queues, which every mail writes, have none.
"""

from typing import Any

from sqlalchemy import Dialect, String, Text
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.types import TypeDecorator, TypeEngine


class InvalidTextError(DontWrapMixin, ValueError):
    """A text contains NUL, which no column accepts."""


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
    """Return the text with each NUL replaced by U+FFFD."""
    return text.replace("\0", "\ufffd")
