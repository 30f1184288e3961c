"""What is specific to PostgreSQL: connections, tables, checks. Its errors: `postgresql_errors.py`.

Theory of operation. The parameters of a connection are those of the URL, as libpq reads it, then
those below, then the `PG…` variables and `~/.pgpass`. Transactions are begun by this module, not by
the driver. A direct connection gets its settings once, when it is made. Behind a pooler, such as
PgBouncer in transaction mode, the next transaction may have another session: there the settings are
sent with each BEGIN (`SET LOCAL`), and no statement is prepared. A pooler is recognized by the
process ID that it reports, which is not the one of the session.
"""

import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from time import sleep
from typing import Any

from sqlalchemy import (
    URL,
    BigInteger,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    create_engine,
    event,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from sendback.store.engine.errors import DatabaseUrlError, StoreUnavailableError
from sendback.store.engine.postgresql_errors import described, failure_of
from sendback.store.engine.tables import metadata

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict
except ImportError as missing:
    raise DatabaseUrlError(
        "a database at postgresql:// needs the driver psycopg: install it with "
        "pip install 'sendback[postgresql]'"
    ) from missing

__all__ = ["described", "failure_of"]  # of the interface that `dialects` calls

# After a failed connection the next attempts wait so long, at first and at most.
RECONNECT_SECONDS = (0.1, 1.0)
# A transaction whose server has sent nothing for so long is ended: a proxy in between may keep a
# connection whose server is gone. More than `statement_timeout`.
HANG_SECONDS: float | None = 45.0

OLDEST_SERVER = 150_000
_DRIVER = "postgresql+psycopg"
_CONNECTION = {
    "connect_timeout": "5",
    "application_name": "sendback",
    # A server that is gone without a word is noticed after 25 s.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
_SESSION = {
    "statement_timeout": "'30s'",
    "lock_timeout": "'5s'",
    "idle_in_transaction_session_timeout": "'60s'",
}
# With `off`, a crash of the server would lose mail that was accepted.
_DURABLE = {"synchronous_commit": "on"}
_BEGIN = {
    True: "BEGIN ISOLATION LEVEL READ COMMITTED",
    False: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}


def open_engine(url: str, *, writes: bool) -> Engine:
    """Return an engine whose transactions write, or only read. It has one connection.

    Its `url` has no password. Raises `DatabaseUrlError`; connecting raises `StoreUnavailableError`
    for a server that cannot be used.
    """
    parameters = connection_parameters(url)
    engine = create_engine(
        _shown(parameters),
        creator=lambda: psycopg.connect(autocommit=True, **parameters),
        pool_size=1,
        max_overflow=0,
        use_native_hstore=False,
    )
    begin = _BEGIN[writes]

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        try:
            record.info["begin"] = _begin_of(connection, begin)
        except psycopg.Error as error:
            connection.close()
            raise _translated("SET", error, connection) from error
        except StoreUnavailableError:
            connection.close()
            raise

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            return  # a statement that must not run in a transaction
        driver: Any = connection.connection.dbapi_connection
        try:
            driver.autocommit = True  # SQLAlchemy clears it after `AUTOCOMMIT`
            _begin(driver, connection.info["begin"])
        except psycopg.Error as error:
            raise _translated("BEGIN", error, driver) from error

    return engine


class _BinaryCursor(psycopg.Cursor[Any]):
    def __init__(self, connection: Any, **options: Any) -> None:
        super().__init__(connection, **options)
        self.format = psycopg.pq.Format.BINARY


def read_in_binary(engine: Engine) -> None:
    """Let the server send its results in binary: as text, octets are twice as long.

    Reading a body of 40 MB took 0.69 s of processor time as text, and takes 0.30 s in binary.
    """

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.cursor_factory = _BinaryCursor


def _begin(driver: Any, statements: bytes) -> None:
    """Begin a transaction by libpq, because a cursor takes 40 µs more.

    Whatever the error is, the connection is closed: a new one can begin a transaction.
    """
    result = driver.pgconn.exec_(statements)
    if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
        driver.close()
        raise psycopg.errors.error_from_result(result)


def connection_parameters(url: str) -> dict[str, Any]:
    """Return libpq's parameters for a URL: what it names, and the defaults of this program.

    Raises `DatabaseUrlError`, whose text has nothing that may be a password.
    """
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        unknown = re.search(r'invalid URI query parameter: "(\w{1,64})"', str(error))
        if unknown:
            raise DatabaseUrlError(
                f"the URL of the database has the parameter {unknown[1]}, which PostgreSQL's libpq "
                "does not know: see https://www.postgresql.org/docs/current/libpq-connect.html"
            ) from None
        raise DatabaseUrlError(_UNREADABLE) from None
    if not re.fullmatch(r"[0-9,]*", str(given.get("port", ""))):
        raise DatabaseUrlError(_UNREADABLE)
    return {**_CONNECTION, **given}


_UNREADABLE = (
    "the URL of the database cannot be read: write postgresql://USER@HOST:PORT/DATABASE, and in a "
    "password @ as %40, : as %3A, / as %2F, # as %23 and % as %25"
)


def _shown(parameters: Mapping[str, Any]) -> URL:
    """Return the URL for errors and logs: host, port and database."""
    port, host = str(parameters.get("port", "")), parameters.get("host")
    number = int(port) if port.isdigit() else None
    name = parameters.get("dbname") or os.environ.get("PGDATABASE") or parameters.get("user")
    return URL.create(_DRIVER, host=host, port=number, database=name)


def _begin_of(connection: Any, begin: str) -> bytes:
    """Check the server and configure the session; return what begins a transaction."""
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise StoreUnavailableError(
            f"the database is PostgreSQL {version // 10_000}, and Sendback needs version "
            f"{OLDEST_SERVER // 10_000} or newer"
        )
    asked = "SELECT pg_backend_pid(), current_setting('synchronous_commit'), "
    asked += "current_setting('server_encoding')"
    process, commit, encoding = connection.execute(asked).fetchone()
    if encoding != "UTF8":
        raise StoreUnavailableError(
            f"the database has the encoding {encoding}, and Sendback needs UTF8: create it with "
            "ENCODING 'UTF8' TEMPLATE template0"
        )
    settings = _SESSION | (_DURABLE if commit == "off" else {})
    if process == connection.info.backend_pid:
        connection.execute(_settings(settings))
        return begin.encode()
    connection.prepare_threshold = None
    return f"{begin}; {_settings(settings, 'LOCAL ')}".encode()


def _settings(values: Mapping[str, str], scope: str = "") -> str:
    return "; ".join(f"SET {scope}{name} = {value}" for name, value in values.items())


def _translated(statement: str, error: Exception, driver: Any) -> BaseException:
    """Return the error as SQLAlchemy would have raised it."""
    return DBAPIError.instance(
        statement, None, error, psycopg.Error, connection_invalidated=driver.closed
    )


def interrupt(driver: Any) -> None:
    """End a connection that another thread waits for: its statement fails at once."""
    with (
        suppress(OSError, psycopg.Error),
        closing(socket.socket(fileno=os.dup(driver.fileno()))) as found,
    ):
        found.shutdown(socket.SHUT_RDWR)


def data_version(connection: Connection) -> int | None:  # noqa: ARG001 - there is none
    """Return None: reading a row is as cheap here."""
    return None


def tune(connection: Connection) -> None:
    """Give all columns and tables what SQLAlchemy's types do not say; change only what differs.

    - Texts are compared by their octets (`C`), as Python and SQLite compare them: rows are locked
      in that order, and an ICU locale has another.
    - Octets are not compressed: that costs more CPU than it saves, and most mail is small.
    - Tables whose rows are updated for each mail have space beside them, and are cleaned early.
    """
    changes: dict[str, list[str]] = {}
    for row in connection.execute(_UNTUNED_COLUMNS):
        values = f'TYPE {row.type} COLLATE "C"' if row.is_text else "SET STORAGE EXTERNAL"
        changes.setdefault(row.name, []).append(f'ALTER COLUMN "{row.column}" {values}')
    for name in connection.execute(_UNTUNED_TABLES, {"names": sorted(_BUSY_TABLES)}).scalars():
        changes.setdefault(name, []).append(f"SET ({_BUSY})")
    for name in sorted(changes):
        connection.exec_driver_sql(f'ALTER TABLE "{name}" {", ".join(changes[name])}')


_UNTUNED_COLUMNS = text(
    "SELECT c.relname AS name, a.attname AS column, l.oid IS NOT NULL AS is_text, "
    "format_type(a.atttypid, a.atttypmod) AS type "
    "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
    "LEFT JOIN pg_collation l ON l.oid = a.attcollation "
    "WHERE c.relnamespace = current_schema::regnamespace AND c.relkind = 'r' "
    "AND a.attnum > 0 AND NOT a.attisdropped "
    "AND (l.collname <> 'C' OR (a.atttypid = 'bytea'::regtype AND a.attstorage <> 'e')) "
    "ORDER BY c.relname, a.attnum"
)
_UNTUNED_TABLES = text(
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema::regnamespace "
    "AND relkind = 'r' AND reloptions IS NULL AND relname = ANY(:names) ORDER BY relname"
)
_BUSY_TABLES = {"accounts", "destinations", "generations", "outbox", "processing", "steps"}
_BUSY = (
    "fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05"
)


def integrity_problems(connection: Connection, limit: int) -> list[str]:
    """Return what is broken: indexes, foreign keys, and what amcheck finds where it is installed.

    PostgreSQL checks its pages by itself when they are read, if it has checksums.
    """
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    # The caller queries its content store between the rows.
    connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
    problems = [
        f"the index {name} is not usable: run REINDEX INDEX {name}"
        for name in connection.execute(_INVALID_INDEXES).scalars()
    ]
    for table in metadata.sorted_tables:
        for key in table.foreign_keys:
            parent = key.column
            orphans = select(func.count()).where(
                key.parent.is_not(None), ~exists().where(parent == key.parent)
            )
            count = connection.execute(orphans).scalar_one()
            if count:
                name = f"{table.name} name a row of {parent.table.name} that is not there"
                problems.append(f"{count} rows of {name}")
    problems += _amcheck(connection)
    return problems[:limit]


_INVALID_INDEXES = text(
    "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
    "WHERE c.relnamespace = current_schema::regnamespace AND NOT i.indisvalid ORDER BY 1"
)
_INDEXES = text(
    "SELECT i.indexrelid::int8 AS id, i.indexrelid::regclass::text AS name FROM pg_index i "
    "JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid "
    "JOIN pg_am m ON m.oid = x.relam "
    "WHERE c.relnamespace = current_schema::regnamespace AND m.amname = 'btree' AND i.indisvalid "
    "AND EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'amcheck') ORDER BY 2"
)


def _amcheck(connection: Connection) -> Iterable[str]:
    for row in connection.execute(_INDEXES).all():
        try:
            with connection.begin_nested():
                connection.exec_driver_sql(f"SELECT bt_index_check({row.id}::oid::regclass)")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _NOT_PERMITTED:
                return
            yield f"the index {row.name}: {error.orig}"


_NOT_PERMITTED = "42501"


# The key of the advisory lock of the schema: any number that other programs do not use.
_SCHEMA_LOCK = 0x53656E646261636B
_LOCK_POLL_SECONDS = 0.2
# Of a transaction that migrates. A statement that waits for a lock makes all others wait that come
# after it, so it waits for a second at most. A build of an index whose client was killed ends soon.
_MIGRATION_SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "1s",
    "idle_in_transaction_session_timeout": "0",
    "client_connection_check_interval": "2s",
}
_LOCK_TIMEOUTS = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected


def database_time(connection: Connection) -> datetime:
    """Return the time of the server's clock."""
    time: datetime = connection.execute(_NOW).scalar_one()
    return time


_NOW = select(func.clock_timestamp())


def table_sizes(
    connection: Connection, tables: Sequence[str]
) -> Sequence[tuple[str, int, int | None]]:
    """Return each table with the rows of the statistics, and its octets with those of its indexes.

    A table that was never analyzed has no such number; its rows are counted, up to 10,000.
    """
    sizes = []
    for name in tables:
        query = text(
            "SELECT reltuples, pg_total_relation_size(oid) FROM pg_class "
            "WHERE oid = to_regclass(:name)"
        )
        row = connection.execute(query, {"name": name}).one()
        rows = int(row[0])
        if rows <= 0:
            counted = f"SELECT count(*) FROM (SELECT 1 FROM {name} LIMIT 10000) AS found"  # noqa: S608
            rows = int(connection.execute(text(counted)).scalar_one())
        sizes.append((name, rows, int(row[1])))
    return sizes


def database_octets(connection: Connection) -> int:
    """Return the octets of the database."""
    query = text("SELECT pg_database_size(current_database())")
    return int(connection.execute(query).scalar_one())


def insert_rows(connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert many rows, whose values are in the order of the columns, by COPY."""
    columns = ", ".join(column.name for column in table.columns)
    types = [_TYPES[_kind(column.type)] for column in table.columns]
    statement = f"COPY {table.name} ({columns}) FROM STDIN (FORMAT BINARY)"
    driver: Any = connection.connection.dbapi_connection
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise _translated("COPY", error, driver) from error


# A subclass comes before its class.
_TYPES: dict[type, str] = {
    BigInteger: "int8",
    Integer: "int4",
    LargeBinary: "bytea",
    Text: "text",
    String: "varchar",
}


def _kind(column_type: Any) -> Any:
    kind = getattr(column_type, "impl", column_type)
    return next(known for known in _TYPES if isinstance(kind, known))


def finish_copy(connection: Connection, tables: Sequence[Table]) -> None:
    """Let the next automatic numbers follow those in the tables, and update the statistics."""
    for table in tables:
        column = table.autoincrement_column
        if column is not None:
            # The third argument: whether the number was used, so that an empty table begins at 1.
            largest = select(func.coalesce(func.max(column), 1), func.count() > 0)
            number, is_used = connection.execute(largest.select_from(table)).one()
            sequence = func.pg_get_serial_sequence(table.name, column.name)
            connection.execute(select(func.setval(sequence, number, is_used)))
    connection.exec_driver_sql("ANALYZE")


def lock_schema(connection: Connection) -> None:
    """Keep other processes from changing the schema until the transaction ends; wait for them."""
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")  # `statement_timeout` is the bound
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})


@contextmanager
def schema_lock(url: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of the schema, on a connection of its own.

    Wait for it as long as another process has it; `waiting` is called once then. The lock ends with
    its transaction, so that it works behind PgBouncer too.
    """
    engine = open_engine(url, writes=True)
    query = text("SELECT pg_try_advisory_xact_lock(:key)")
    try:
        with engine.connect() as connection:
            is_first = True
            while not connection.execute(query, {"key": _SCHEMA_LOCK}).scalar():
                if is_first:
                    waiting()
                is_first = False
                sleep(_LOCK_POLL_SECONDS)
            # The result of a query keeps its snapshot, for which the build of an index would wait,
            # until the next statement.
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield
    finally:
        engine.dispose()


def prepare_for_migration(engine: Engine) -> None:
    """Let transactions of this engine take long, and wait for locks only for a second."""

    @event.listens_for(engine, "begin")
    def set_timeouts(connection: Connection) -> None:
        for name, value in _MIGRATION_SETTINGS.items():
            connection.exec_driver_sql(f"SET LOCAL {name} = '{value}'")


def is_lock_timeout(error: BaseException) -> bool:
    """Return whether another transaction had a lock for too long."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in _LOCK_TIMEOUTS
