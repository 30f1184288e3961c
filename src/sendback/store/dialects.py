"""The one module that knows how databases differ: SQLite now, PostgreSQL next.

Elsewhere stands SQL that both understand, written with SQLAlchemy Core. `with_for_update` and
the like are left in by the callers; SQLite's compiler omits what it does not need.
"""

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url

BUSY_TIMEOUT_MILLISECONDS = 5000


def open_engine(url: str, *, writes: bool) -> Engine:
    """An engine whose transactions are for writing, or for reading only."""
    parsed = make_url(url)
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"check_same_thread": False})
    _configure_sqlite(engine, "BEGIN IMMEDIATE" if writes else "BEGIN")
    return engine


def _configure_sqlite(engine: Engine, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")
        cursor.execute("PRAGMA journal_mode = WAL")
        # NORMAL would lose acknowledged commits on power loss.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    # IMMEDIATE: a transaction that will write waits for its turn at the start; one that begins
    # by reading and then writes would fail at once when another process wrote in between.
    @event.listens_for(engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)
