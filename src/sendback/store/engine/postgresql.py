"""What is specific to PostgreSQL: connections, error codes, checks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import sleep
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

_DRIVER = "postgresql+psycopg"
_SETTINGS = {
    "statement_timeout": "30s",
    "lock_timeout": "10s",
    "idle_in_transaction_session_timeout": "60s",
}


def open_engine(url: URL, *, writes: bool) -> Engine:
    """Return an engine whose transactions write, or only read."""
    engine = create_engine(
        url.set(drivername=_DRIVER),
        isolation_level="READ COMMITTED" if writes else "REPEATABLE READ",
        pool_size=1,
        max_overflow=0,
        connect_args={"connect_timeout": 5, "application_name": "sendback"},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        for name, value in _SETTINGS.items():
            connection.execute(f"SET {name} = '{value}'")
        connection.commit()
        connection.read_only = not writes

    return engine


def reason_unavailable(error: BaseException, url: URL) -> str | None:
    """Return why the database is unavailable, or None for any other error."""
    if not isinstance(error, DBAPIError):
        return None
    if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError):
        return f"the database {url.database} at {url.host}: {error.orig}"
    return None


def data_version(connection: Connection) -> int | None:  # noqa: ARG001 - there is none
    """Return None: reading a row is as cheap here."""
    return None


def integrity_problems(connection: Connection, limit: int) -> list[str]:  # noqa: ARG001
    """Return nothing: PostgreSQL checks its pages when it reads them."""
    return []


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


def database_time(connection: Connection) -> int:
    """Return the time of the server's clock, in Unix milliseconds."""
    query = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)")
    return int(connection.execute(query).scalar_one())


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


def lock_schema(connection: Connection) -> None:
    """Keep other processes from changing the schema until the transaction ends; wait for them."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})


@contextmanager
def schema_lock(url: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of the schema, on a connection of its own.

    Wait for it as long as another process has it; `waiting` is called once then. The lock ends with
    its transaction, so that it works behind PgBouncer too.
    """
    engine = open_engine(make_url(url), writes=True)
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
