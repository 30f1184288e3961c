"""The databases: SQLite and PostgreSQL. `sqlite.py` and `postgresql.py` have what differs.

All other SQL is SQLAlchemy Core that both support. SQLAlchemy omits `with_for_update` from SQL for
SQLite, which has one writer at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from sqlalchemy import URL, Connection, Engine, make_url

from sendback.store.engine import sqlite


def open_engine(url: str, *, writes: bool) -> Engine:
    """Return an engine whose transactions write, or only read.

    Raises `StoreUnavailableError`.
    """
    parsed = make_url(url)
    engine: Engine = _module(parsed).open_engine(parsed, writes=writes)
    return engine


def reason_unavailable(error: BaseException, url: URL) -> str | None:
    """Return why the database is unavailable and what to do, or None for any other error.

    `error` is what SQLAlchemy raised.
    """
    reason: str | None = _module(url).reason_unavailable(error, url)
    return reason


def data_version(connection: Connection) -> int | None:
    """Return a number that changes with each commit of another connection, in any process.

    Only numbers of the same connection can be compared. None: the database has no such number.
    """
    version: int | None = _module(connection.engine.url).data_version(connection)
    return version


def integrity_problems(connection: Connection, limit: int) -> list[str]:
    """Return the problems that the database's own checks report, up to `limit` for each check."""
    problems: list[str] = _module(connection.engine.url).integrity_problems(connection, limit)
    return problems


def database_time(connection: Connection) -> int:
    """Return the time of the database's clock, in Unix milliseconds."""
    time: int = _module(connection.engine.url).database_time(connection)
    return time


def table_sizes(
    connection: Connection, tables: Sequence[str]
) -> Sequence[tuple[str, int, int | None]]:
    """Return each table with its number of rows, about, and its octets. None: unknown."""
    sizes: Sequence[tuple[str, int, int | None]] = _module(connection.engine.url).table_sizes(
        connection, tables
    )
    return sizes


def database_octets(connection: Connection) -> int:
    """Return the octets of the whole database."""
    octets: int = _module(connection.engine.url).database_octets(connection)
    return octets


def lock_schema(connection: Connection) -> None:
    """Keep other processes from changing the schema until the transaction ends; wait for them."""
    _module(connection.engine.url).lock_schema(connection)


@contextmanager
def schema_lock(url: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of the schema, on a connection of its own.

    Wait for it as long as another process has it; `waiting` is called once then. SQLite has no such
    lock: there each transaction that writes is alone.
    """
    with _module(make_url(url)).schema_lock(url, waiting):
        yield


def prepare_for_migration(engine: Engine) -> None:
    """Let transactions of this engine take long, and wait for locks only for a moment."""
    _module(engine.url).prepare_for_migration(engine)


def is_lock_timeout(error: BaseException, url: URL) -> bool:
    """Return whether a statement failed because another transaction had a lock for too long."""
    result: bool = _module(url).is_lock_timeout(error)
    return result


def is_sqlite(url: str) -> bool:
    """Return whether the database is SQLite, which only the processes of one machine share."""
    return make_url(url).get_backend_name() == "sqlite"


def _module(url: URL) -> ModuleType:
    if url.get_backend_name() == "sqlite":
        return sqlite
    # Importing the driver takes 100 ms.
    from sendback.store.engine import postgresql  # noqa: PLC0415

    return postgresql
