"""Statements that run for every mail and every call, given to SQLite's driver directly.

Theory of operation. For each execution SQLAlchemy makes a context, looks up the compiled statement
and makes a result object, which costs several times what SQLite needs for a row (measured for an
insert of one row: 69 µs of CPU by SQLAlchemy, 13 here). A `HotStatement` is a statement of
SQLAlchemy that is made once, at module level. On SQLite it is compiled at its first use, and its
text goes to the driver with a tuple of parameters; on PostgreSQL SQLAlchemy executes it, because
there the round trip costs more than its own work. Both raise the same errors and return rows with
the same attributes.

The driver does not report to `changes.ChangeRecorder`, so a statement that changes a watched table
is refused when it is made. The driver's connection is taken from SQLAlchemy's each time, so that a
new connection is used as soon as there is one.
"""

import sqlite3
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, TypeAlias, cast

from sqlalchemy import (
    Connection,
    Delete,
    Dialect,
    Insert,
    LargeBinary,
    Select,
    TextClause,
    Update,
    exc,
)
from sqlalchemy.types import TypeEngine

from sendback.store.engine.changes import changes_watched

Values: TypeAlias = Mapping[str, Any]
_Guard: TypeAlias = Callable[[Any], Any]


class HotStatement:
    """A SELECT, INSERT, UPDATE or DELETE, or a text of SQL, that is executed often.

    Its parameters are named binds. One with `expanding=True` is a list for `IN`. The parameters of
    an INSERT are its columns; all executions of one must name the same columns. Columns must be of
    types whose values the driver returns as they are: texts, integers, octets.
    """

    def __init__(self, statement: Select[Any] | Insert | Update | Delete | TextClause) -> None:
        """Raises `ValueError` for a statement that changes a watched table (`changes`)."""
        sql = _beginning(statement)
        if changes_watched(sql, statement.get_execution_options()):
            raise ValueError(f"this change must be recorded: execute it by SQLAlchemy: {sql}")
        self._statement = statement
        self._texts: dict[tuple[int, ...], _Text] = {}  # by the lengths of the lists
        self._lists: tuple[str, ...] | None = None
        self._make_row: Callable[[Iterable[Any]], Any] | None = None

    def rows(self, connection: Connection, values: Values) -> Sequence[Any]:
        """Return all rows of a SELECT, or of RETURNING; their columns are attributes."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, values).all()
        cursor = self._execute(connection, values)
        try:
            found = cursor.fetchall()
        except sqlite3.Error as error:
            raise _translated(error, self._text(connection, values).sql) from error
        if not found:
            return found
        if self._make_row is None:
            names = [column[0] for column in cursor.description]
            self._make_row = cast("Any", namedtuple("Row", names))._make  # noqa: PYI024
        return list(map(self._make_row, found))

    def run(self, connection: Connection, values: Values) -> int:
        """Execute an UPDATE, INSERT or DELETE; return the number of rows that it has changed."""
        if connection.dialect.name != "sqlite":
            return connection.execute(self._statement, values).rowcount
        return self._execute(connection, values).rowcount

    def run_all(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Execute an INSERT, UPDATE or DELETE once for each of `rows`; it has no lists."""
        if connection.dialect.name != "sqlite":
            connection.execute(self._statement, rows)
            return
        text = self._text(connection, rows[0])
        parameters = [text.parameters(row) for row in rows]
        try:
            _driver(connection).executemany(text.sql, parameters)
        except sqlite3.Error as error:
            raise _translated(error, text.sql) from error

    def _execute(self, connection: Connection, values: Values) -> sqlite3.Cursor:
        text = self._text(connection, values)
        parameters = text.parameters(values)
        try:
            return _driver(connection).execute(text.sql, parameters)
        except sqlite3.Error as error:
            raise _translated(error, text.sql) from error

    def _text(self, connection: Connection, values: Values) -> "_Text":
        """Return the text for lists of these lengths, rounded up: so there are few texts."""
        lists = self._lists
        key = () if not lists else tuple(_rounded(len(values[name])) for name in lists)
        text = self._texts.get(key) if lists is not None else None
        return text or self._compile(connection, values)

    def _compile(self, connection: Connection, values: Values) -> "_Text":
        compiled: Any = self._statement.compile(
            dialect=connection.dialect, column_keys=list(values)
        )
        binds = [bind for bind in compiled.binds.values() if bind.key in values]
        self._lists = tuple(bind.key for bind in binds if bind.expanding)
        lengths = tuple(_rounded(len(values[name])) for name in self._lists)
        lists = {name: [None] * length for name, length in zip(self._lists, lengths, strict=True)}
        state = compiled.construct_expanded_state({**values, **lists})
        parts = {name: tuple(state.parameter_expansion[name]) for name in self._lists}
        given = {*values, *chain.from_iterable(parts.values())}
        fixed = {name: value for name, value in state.parameters.items() if name not in given}
        guards = {bind.key: _guard(bind.type, connection.dialect) for bind in binds}
        text = _Text(state.statement, tuple(state.positiontup), fixed, parts, guards)
        self._texts[lengths] = text
        return text


def _beginning(statement: Any) -> str:
    """Return a text that begins as the statement does: compiling all of them would take 20 ms."""
    if isinstance(statement, TextClause):
        return statement.text
    verbs = {Insert: "INSERT INTO", Update: "UPDATE", Delete: "DELETE FROM"}
    for kind, verb in verbs.items():
        if isinstance(statement, kind):
            return f"{verb} {statement.entity_description['name']}"
    return "SELECT"


class _Text:
    """A statement as the driver takes it."""

    def __init__(
        self,
        sql: str,
        names: tuple[str, ...],
        fixed: Values,
        lists: Mapping[str, tuple[str, ...]],
        guards: Mapping[str, "_Guard | None"],
    ) -> None:
        """`names` are the parameters in their order, `fixed` those that the statement itself has.

        `lists` has the names of the parts of each list. `guards` convert or refuse a value.
        """
        self.sql = sql
        self._fixed = fixed
        self._lists = lists
        self._guards = [(name, guard) for name, guard in guards.items() if guard is not None]
        self._is_plain = not (fixed or lists or self._guards)
        self._take = itemgetter(*names) if len(names) > 1 else _taking(names)

    def parameters(self, values: Values) -> tuple[Any, ...]:
        """Return the values in the order of the statement."""
        if self._is_plain:
            return cast("tuple[Any, ...]", self._take(values))
        every = {**self._fixed, **values}
        for name, guard in self._guards:
            value = every[name]
            every[name] = list(map(guard, value)) if name in self._lists else guard(value)
        for name, parts in self._lists.items():
            every.update(zip(parts, _padded(every[name]), strict=False))
        return cast("tuple[Any, ...]", self._take(every))


def _guard(kind: TypeEngine[Any], dialect: Dialect) -> "_Guard | None":
    """Return what a column's type does to values, such as refusing NUL (`column_types`)."""
    if isinstance(kind, LargeBinary):
        return None  # the driver takes octets as they are
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _taking(names: tuple[str, ...]) -> Callable[[Values], tuple[Any, ...]]:
    """Return what `itemgetter` does not: a tuple for one name, or for none."""
    return lambda values: tuple(values[name] for name in names)


def _padded(items: Iterable[Any]) -> Iterable[Any]:
    """Yield the items, then the last one without end: `IN` ignores repetitions."""
    item = None
    for item in items:
        yield item
    yield from repeat(item)


def _rounded(length: int) -> int:
    """Return the next power of two; 0 for an empty list."""
    return 1 << (length - 1).bit_length() if length else 0


def _driver(connection: Connection) -> sqlite3.Connection:
    """Return the driver's connection, in a transaction as SQLAlchemy's own statements are."""
    driver: sqlite3.Connection = cast("Any", connection.connection.driver_connection)
    if not driver.in_transaction and not connection.in_transaction():
        connection.begin()
    return driver


# The driver's errors, and those that SQLAlchemy raises for them.
_ERRORS: Mapping[type[BaseException], type[exc.DBAPIError]] = {
    sqlite3.InterfaceError: exc.InterfaceError,
    sqlite3.DataError: exc.DataError,
    sqlite3.OperationalError: exc.OperationalError,
    sqlite3.IntegrityError: exc.IntegrityError,
    sqlite3.InternalError: exc.InternalError,
    sqlite3.ProgrammingError: exc.ProgrammingError,
    sqlite3.NotSupportedError: exc.NotSupportedError,
    sqlite3.DatabaseError: exc.DatabaseError,
    sqlite3.Error: exc.DBAPIError,
}


def _translated(error: sqlite3.Error, sql: str) -> exc.DBAPIError:
    """Return the error that SQLAlchemy would raise, but without the parameters: they are mail."""
    kind = next(_ERRORS[base] for base in type(error).__mro__ if base in _ERRORS)
    return kind(sql, None, error)
