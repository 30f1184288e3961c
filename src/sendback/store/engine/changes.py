"""The generation of the store: a number that every change moves on which a cache depends.

Theory of operation. The engine that writes reports each statement that has run. When one has
changed a row of a table that is not in `_UNWATCHED`, the transaction increments the generation in
the database before it commits. So no code that writes can forget it, and a new table is watched
from the beginning. A statement that changes only what no cache holds, such as the date at which a
key was last used, has the execution options `UNWATCHED`.

Within a process, `Changes.count` moves after the commit and before the caller of the transaction
gets its result. It also moves when the transaction failed: its commit may have succeeded. Changes
of other processes are noticed by `Changes.refresh`, which reads the generation when the last read
began more than `FRESH_SECONDS` ago, or before the last `expire`: a transaction that increments the
generation wakes all other processes (`wakeups`). A cached value may be used only while `is_fresh`
is true, so a store that cannot be read makes the caches unusable, not old.

A read that was running while `count` moved may have the state before the change: it may be
returned, because its caller called before the change was complete, and must not be cached.
`caching.StoreCache` follows these rules.
"""

import os
import re
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Self

from sqlalchemy import Connection, Engine, event, select, text

from sendback.store.engine.dialects import data_version
from sendback.store.engine.errors import RefusedError
from sendback.store.engine.tables import generations
from sendback.store.engine.transactions import BatchUnit
from sendback.store.engine.wakeups import Subject, wake

# Two processes may disagree for a second; half of it is for a read that takes long.
FRESH_SECONDS = 0.5

# The options of a statement that changes nothing that is cached.
UNWATCHED: Final[Mapping[str, Any]] = {"sendback_unwatched": True}

# Tables whose rows change with mail and calls, and which no cache holds.
_UNWATCHED = frozenset(
    {
        "alembic_version",
        "attempts",
        "audit_lines",
        "console_passwords",
        "console_sessions",
        "content_chunks",
        "content_stores",
        "counters",
        "destinations",
        "generations",
        "installation",
        "loose_contents",
        "messages",
        "mta_sts_policies",
        "outbox",
        "outbox_contents",
        "processing",
        "remembered_calls",
        "rule_set_versions",  # a version never changes
        "steps",
    }
)

_WRITES = re.compile(
    r"\s*(?:WITH\b.*\s)?"
    r"(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE(?:\s+OR\s+\w+)?|DELETE\s+FROM)"
    r'\s+(?:"?main"?\.)?"?(\w+)',
    re.IGNORECASE | re.DOTALL,
)

# A row that was deleted must not return with a number that a process has seen: `first` is random.
_INCREMENT = text(
    "INSERT INTO generations (name, number) VALUES ('all', :first) "
    "ON CONFLICT (name) DO UPDATE SET number = generations.number + 1"
)
_NUMBER = select(generations.c.number)
_KNOWN = "sendback_generation"


def changes_watched(sql: str, options: Mapping[str, Any]) -> bool:
    """Return whether the statement may change rows of a watched table."""
    written = _WRITES.match(sql)
    if written is None or written[1].lower() in _UNWATCHED:
        return False
    return not options.keys() >= UNWATCHED.keys()


class ChangeRecorder:
    """Increments the generation in each transaction of the engine that changes a watched table.

    The engine must be used by one thread, with one connection at a time.
    """

    def __init__(self, engine: Engine) -> None:
        self._has_changed = False
        event.listen(engine, "after_cursor_execute", self._executed)
        event.listen(engine, "commit", self._committing)

    def take(self) -> bool:
        """Return whether a transaction changed a watched table since the last call."""
        has_changed, self._has_changed = self._has_changed, False
        return has_changed

    def _executed(
        self,
        _connection: Connection,
        cursor: Any,
        statement: str,
        _parameters: Any,
        context: Any,
        _many: bool,  # noqa: FBT001 - SQLAlchemy's
    ) -> None:
        # With RETURNING, the number of rows is not known yet.
        if cursor.rowcount == 0 and cursor.description is None:
            return
        if changes_watched(statement, context.execution_options):
            self._has_changed = True

    def _committing(self, connection: Connection) -> None:
        if self._has_changed:
            connection.execute(_INCREMENT, {"first": int.from_bytes(os.urandom(6))})
            wake(connection, Subject.CHANGES)


class ReadGeneration(BatchUnit[int]):
    """Return the generation of the database."""

    @classmethod
    def run_together(
        cls, connection: Connection, units: Sequence[Self]
    ) -> Sequence[int | RefusedError]:
        return [_generation(connection)] * len(units)


def _generation(connection: Connection) -> int:
    """Return the generation; one pragma while no other connection has committed anything.

    On PostgreSQL, the query alone is as cheap. `connection.info` ends with the connection.
    """
    version = data_version(connection)
    known: tuple[int | None, int] | None = connection.info.get(_KNOWN)
    if known is not None and version is not None and known[0] == version:
        return known[1]
    number = int(connection.execute(_NUMBER).scalar() or 0)
    connection.info[_KNOWN] = version, number
    return number


class Changes:
    """The changes that this process knows of. Thread-safe."""

    def __init__(
        self,
        recorder: ChangeRecorder,
        read: Callable[[ReadGeneration], Awaitable[int]],
        timer: Callable[[], float] = monotonic,
    ) -> None:
        """`read` runs a unit in a transaction that reads; `timer` is real time, in seconds."""
        self._recorder = recorder
        self._read = read
        self._timer = timer
        self._lock = threading.Lock()
        self._count = 0
        self._generation: int | None = None
        self._read_at = float("-inf")
        self._expired_at = float("-inf")

    @property
    def count(self) -> int:
        """A number that differs after every change; only equality has a meaning."""
        return self._count

    @property
    def is_fresh(self) -> bool:
        """Whether `count` has noticed all changes up to `FRESH_SECONDS` ago, here and elsewhere."""
        is_recent = self._timer() - self._read_at < FRESH_SECONDS
        return is_recent and self._read_at > self._expired_at

    def expire(self) -> None:
        """Let the next `refresh` read the generation: another process has changed it."""
        self._expired_at = self._timer()

    async def refresh(self) -> None:
        """Notice the changes of other processes, unless `is_fresh`.

        Raises `StoreUnavailableError`.
        """
        if self.is_fresh:
            return
        began = self._timer()
        number = await self._read(ReadGeneration())
        if number != self._generation:
            self._generation = number
            self._move()
        self._read_at = max(self._read_at, began)

    def transaction_ended(self) -> None:
        """Notice what the writer's last transaction changed. Called by its thread."""
        if self._recorder.take():
            self._move()

    def _move(self) -> None:
        with self._lock:
            self._count += 1
