"""What is specific to PostgreSQL: connections, error codes, checks."""

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
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
