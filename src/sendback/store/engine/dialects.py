"""The databases: SQLite and PostgreSQL. `sqlite.py` and `postgresql.py` have what differs.

All other SQL is SQLAlchemy Core that both support. SQLAlchemy omits `with_for_update` from SQL for
SQLite, which has one writer at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table
from sqlalchemy.exc import DBAPIError

from sendback.store.engine import sqlite
from sendback.store.engine.errors import Failure


def open_engine(url: str, *, writes: bool) -> Engine:
    """Return an engine whose transactions write, or only read.

    Raises `DatabaseUrlError`, `StoreUnavailableError`.
    """
    engine: Engine = _module(url).open_engine(url, writes=writes)
    return engine


def read_in_binary(engine: Engine) -> None:
    """Let an engine that reads octets get them as they are; only PostgreSQL has another form."""
    if engine.dialect.name == "postgresql":
        _module(engine).read_in_binary(engine)


def failure_of(error: BaseException, engine: Engine) -> Failure | None:
    """Return what an error means for the transaction, or None: it is the unit's own.

    `error` is what SQLAlchemy raised, or what connecting raised.
    """
    failure: Failure | None = _module(engine).failure_of(error, engine.url)
    return failure


def described(error: DBAPIError, engine: Engine) -> str:
    """Return the text of an error for which only the operator can do something, with advice."""
    description: str = _module(engine).described(error, engine.url)
    return description


def reconnect_seconds(engine: Engine) -> tuple[float, float]:
    """Return how long to wait after a failed connection, at first and at most."""
    seconds: tuple[float, float] = _module(engine).RECONNECT_SECONDS
    return seconds


def hang_seconds(engine: Engine) -> float | None:
    """Return after how long a transaction without an end hangs. None: it cannot hang."""
    seconds: float | None = _module(engine).HANG_SECONDS
    return seconds


def interrupt(engine: Engine, driver: Any) -> None:
    """Let the statement fail that another thread runs on this connection of the driver."""
    _module(engine).interrupt(driver)


def data_version(connection: Connection) -> int | None:
    """Return a number that changes with each commit of another connection, in any process.

    Only numbers of the same connection can be compared. None: the database has no such number.
    """
    version: int | None = _module(connection.engine).data_version(connection)
    return version


def integrity_problems(connection: Connection, limit: int) -> list[str]:
    """Return the problems that the database's own checks report, up to `limit` for each check."""
    problems: list[str] = _module(connection.engine).integrity_problems(connection, limit)
    return problems


def database_time(connection: Connection) -> datetime:
    """Return the time of the database's clock; SQLite has that of this machine."""
    time: datetime = _module(connection.engine).database_time(connection)
    return time


def table_sizes(
    connection: Connection, tables: Sequence[str]
) -> Sequence[tuple[str, int, int | None]]:
    """Return each table with its number of rows, about, and its octets. None: unknown."""
    sizes: Sequence[tuple[str, int, int | None]] = _module(connection.engine).table_sizes(
        connection, tables
    )
    return sizes


def database_octets(connection: Connection) -> int:
    """Return the octets of the whole database."""
    octets: int = _module(connection.engine).database_octets(connection)
    return octets


def insert_rows(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert many rows, whose values are in the order of the columns."""
    _module(connection.engine).insert_rows(connection, table, rows)


def finish_copy(connection: Connection, tables: Sequence[Table]) -> None:
    """Let the next automatic numbers follow those in the tables, and update the statistics."""
    _module(connection.engine).finish_copy(connection, tables)


def lock_schema(connection: Connection) -> None:
    """Keep other processes from changing the schema until the transaction ends; wait for them."""
    _module(connection.engine).lock_schema(connection)


@contextmanager
def schema_lock(url: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of the schema, on a connection of its own.

    Wait for it as long as another process has it; `waiting` is called once then. SQLite has no such
    lock: there each transaction that writes is alone.
    """
    with _module(url).schema_lock(url, waiting):
        yield


@contextmanager
def patient_engine(url: str, *, writes: bool) -> Iterator[Engine]:
    """Yield an engine whose transactions may take long, and wait for locks only for a moment.

    Raises `DatabaseUrlError`, `StoreUnavailableError`.
    """
    engine = open_engine(url, writes=writes)
    _module(engine).prepare_for_migration(engine)
    try:
        yield engine
    finally:
        engine.dispose()


def tune(connection: Connection) -> None:
    """Give the tables what only this database has. To be repeated after each change of them."""
    _module(connection.engine).tune(connection)


def is_lock_timeout(error: BaseException, url: URL) -> bool:
    """Return whether a statement failed because another transaction had a lock for too long."""
    result: bool = _module(url.drivername).is_lock_timeout(error)
    return result


def is_sqlite(url: str) -> bool:
    """Return whether the database is SQLite, which only the processes of one machine share."""
    return url.startswith("sqlite")


def _module(database: Engine | str) -> ModuleType:
    """Return the module of an engine's database, or of a URL's."""
    name = database if isinstance(database, str) else database.dialect.name
    if name.startswith("sqlite"):
        return sqlite
    # Importing the driver takes 100 ms.
    from sendback.store.engine import postgresql  # noqa: PLC0415

    return postgresql
