"""What is specific to SQLite: connections, error codes, checks."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, insert, make_url
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError

from sendback.clock import SystemClock
from sendback.store.engine.errors import Failure, FailureKind, StoreUnavailableError

BUSY_TIMEOUT_MILLISECONDS = 5000
_LOCK_POLL_SECONDS = 0.0005

# SQLite's primary result codes for errors of the database, not of the statement
# (https://sqlite.org/rescode.html), each with its cause or what to do about it.
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process held its write lock for too long",
    sqlite3.SQLITE_LOCKED: "another connection of this process holds its lock",
    sqlite3.SQLITE_PROTOCOL: "another process holds its lock",
    sqlite3.SQLITE_READONLY: "its owner and permissions must let this user write to the file and "
    "to its directory",
    sqlite3.SQLITE_CANTOPEN: "it must be a file, in a directory that this user can write to",
    sqlite3.SQLITE_PERM: "its owner and permissions must let this user read and write it",
    sqlite3.SQLITE_AUTH: "its owner and permissions must let this user read and write it",
    sqlite3.SQLITE_FULL: "the disk is full: free some space, and the server recovers by itself",
    sqlite3.SQLITE_IOERR: "a read or write of the disk failed: see the system log",
    sqlite3.SQLITE_NOLFS: "the file system does not support files of this size",
    sqlite3.SQLITE_INTERRUPT: "the statement was interrupted",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: stop all servers and put a copy in its place, or "
    "save what can be read with `sqlite3 FILE .recover | sqlite3 FILE.new`",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite database: put a copy in its place, or name "
    "another file with --database",
}
_PRIMARY_CODE = 0xFF  # the other bits of an extended result code give details


# Opening a file costs nothing, and a statement cannot wait for another machine.
RECONNECT_SECONDS = (0.0, 0.0)
HANG_SECONDS: float | None = None


def open_engine(text: str, *, writes: bool) -> Engine:
    """Return an engine whose transactions write, or only read.

    Creates the directory of the database. Raises `StoreUnavailableError`.
    """
    url = make_url(text)
    if url.database and url.database != ":memory:":
        folder = Path(url.database).parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            text = f"the directory {folder} of the database cannot be made: {error.strerror}"
            raise StoreUnavailableError(text) from error
    engine = create_engine(url, connect_args={"check_same_thread": False})
    _configure_sqlite(engine, writes=writes)
    return engine


def failure_of(error: BaseException, url: URL) -> Failure | None:
    """Return what an error means for the transaction, or None: it is the unit's own.

    `error` is what SQLAlchemy raised.
    """
    reason = _reason_unavailable(error, url)
    return None if reason is None else Failure(FailureKind.UNAVAILABLE, reason)


def described(error: DBAPIError, url: URL) -> str:
    """Return the text of an error for which only the operator can do something, with advice."""
    return _reason_unavailable(error, url) or f"the database {url.database}: {error.orig}"


def interrupt(driver: Any) -> None:
    """Do nothing: a transaction cannot hang."""


def tune(connection: Connection) -> None:
    """Do nothing: the tables have all that they need."""


def _reason_unavailable(error: BaseException, url: URL) -> str | None:
    """Return why the database is unavailable and what to do, or None for any other error.

    The text has the path of the database.
    """
    if not isinstance(error, DBAPIError):
        return None
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is None:
        # Another driver, or a lost connection. Python's `sqlite3` sets no code for a wrong number
        # or type of parameters, which are errors of the statement (ProgrammingError).
        is_lost = error.connection_invalidated
        is_foreign = not isinstance(error.orig, sqlite3.Error)
        broken = is_lost or (is_foreign and isinstance(error, OperationalError | InterfaceError))
        return str(error.orig) if broken else None
    advice = _ADVICE.get(code & _PRIMARY_CODE)
    if advice is None:
        return None
    return f"the database {url.database}: {error.orig}: {advice.replace('FILE', str(url.database))}"


def data_version(connection: Connection) -> int:
    """Return a number that changes with each commit of another connection, in any process.

    Only numbers of the same connection can be compared. https://sqlite.org/pragma.html
    """
    return int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())


def integrity_problems(connection: Connection, limit: int) -> list[str]:
    """Return the problems that SQLite's own checks report, up to `limit` lines for each check."""
    lines = _rows(connection, f"PRAGMA integrity_check({limit})", limit)
    problems = [str(line) for (line,) in lines if line != "ok"]
    for table, row_id, parent, _ in _rows(connection, "PRAGMA foreign_key_check", limit):
        problems.append(f"row {row_id} of {table} names a row of {parent} that is not there")
    return problems


def database_time(connection: Connection) -> datetime:  # noqa: ARG001 - it has this machine's
    """Return the time of this machine's clock."""
    return SystemClock().now()


def table_sizes(
    connection: Connection, tables: Sequence[str]
) -> Sequence[tuple[str, int, int | None]]:
    """Return each table with its number of rows; SQLite cannot tell octets without reading them."""
    return [
        (name, connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one(), None)  # noqa: S608
        for name in tables
    ]


def database_octets(connection: Connection) -> int:
    """Return the octets of the file."""
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())


def insert_rows(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert many rows, whose values are in the order of the columns."""
    names = [column.name for column in table.columns]
    connection.execute(insert(table), [dict(zip(names, row, strict=True)) for row in rows])


def finish_copy(connection: Connection, tables: Sequence[Table]) -> None:
    """Do nothing: the next automatic number is always one more than the largest."""


def lock_schema(connection: Connection) -> None:
    """Do nothing: a transaction that writes has the lock of the database."""


@contextmanager
def schema_lock(url: str, waiting: Callable[[], None]) -> Iterator[None]:  # noqa: ARG001
    """Do nothing: a transaction that writes has the lock of the database."""
    yield


def prepare_for_migration(engine: Engine) -> None:
    """Do nothing: there are no time-outs."""


def is_lock_timeout(error: BaseException) -> bool:
    """Return whether another process had the lock of the database for too long."""
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & _PRIMARY_CODE == sqlite3.SQLITE_BUSY


def _rows(connection: Connection, pragma: str, limit: int) -> Iterator[Any]:
    """Yield the rows of the pragma; a damaged page ends it early."""
    with suppress(DatabaseError):
        yield from islice(connection.exec_driver_sql(pragma), limit)


def _configure_sqlite(engine: Engine, *, writes: bool) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # `start` below begins transactions, not the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        # NORMAL would lose acknowledged commits on power loss.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        if writes:
            cursor.execute("PRAGMA busy_timeout = 0")  # see `_wait_for_write_lock`
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        if writes:
            _wait_for_write_lock(connection)
        else:
            connection.exec_driver_sql("BEGIN")


def _wait_for_write_lock(connection: Connection) -> None:
    """Begin a transaction that has the write lock of the database, once no other process has it.

    Not by SQLite's own wait: it sleeps for up to 100 ms between its attempts, and of two busy
    processes one could wait for half a second (measured: 546 ms; with this loop 80). IMMEDIATE: a
    transaction that reads first and then writes would fail if another process wrote in between.
    """
    deadline = monotonic() + BUSY_TIMEOUT_MILLISECONDS / 1000
    begin = connection.connection.cursor()
    while monotonic() < deadline:
        try:
            begin.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY:
                break
            sleep(_LOCK_POLL_SECONDS)
        else:
            return
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # its error is the caller's
