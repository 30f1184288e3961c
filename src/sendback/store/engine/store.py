"""The store: one thread that writes, one that reads, and the schema."""

import re
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from sendback.errors import SendbackError
from sendback.store.engine.blobs import Blobs
from sendback.store.engine.changes import ChangeRecorder, Changes
from sendback.store.engine.dialects import open_engine, reason_unavailable
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.locking import has_row_locks
from sendback.store.engine.tables import SCHEMA_VERSION, index_conditions, metadata
from sendback.store.engine.transactions import TransactionThread, Unit

T = TypeVar("T")


class SchemaError(SendbackError):
    """The database has another schema than this version needs; the text says what to do."""


class Store:
    """The database and the large bodies. Open one a process; closing it ends its threads."""

    def __init__(self, url: str, data_dir: Path) -> None:
        """Open the store. Raises `StoreUnavailableError` when a directory cannot be created."""
        self.blobs = Blobs(data_dir)
        writing = open_engine(url, writes=True)
        self._reader = TransactionThread(open_engine(url, writes=False), "store-reader")
        self.changes = Changes(ChangeRecorder(writing), self._reader.run)
        self._writer = TransactionThread(
            writing,
            "store-writer",
            self.changes.transaction_ended,
            locks_rows=has_row_locks(writing),
        )

    async def write(self, unit: Unit[T]) -> T:
        """Return the unit's result once its write transaction is durable.

        Raises `StoreUnavailableError`, and what the unit raises.
        """
        return await self._writer.run(unit)

    async def read(self, unit: Unit[T]) -> T:
        """Return the unit's result, from a read transaction.

        Raises `StoreUnavailableError`, and what the unit raises.
        """
        return await self._reader.run(unit)

    def close(self) -> None:
        """Finish what was submitted and end the threads."""
        self._writer.close()
        self._reader.close()


def prepare_schema(url: str) -> None:
    """Create the tables of an empty database, or check that it has this version's schema.

    Raises `SchemaError`, `StoreUnavailableError`.
    """
    # Checked without the write lock: a command must not wait for the writer of a busy server.
    if transact(url, schema_version, writes=False) != SCHEMA_VERSION:
        transact(url, _create_or_refuse, writes=True)


def transact(url: str, unit: Unit[T], *, writes: bool) -> T:
    """Return the unit's result, from a transaction of its own in this thread.

    Raises `StoreUnavailableError`, and what the unit raises.
    """
    engine = open_engine(url, writes=writes)
    if writes:
        ChangeRecorder(engine)
    try:
        with engine.begin() as connection:
            return unit(connection)
    except DBAPIError as error:
        reason = reason_unavailable(error, engine.url) or f"the database {url}: {error.orig}"
        raise StoreUnavailableError(reason) from error
    finally:
        engine.dispose()


def schema_version(connection: Connection) -> str | None:
    """Return the version in Alembic's table, or None for an empty database.

    Raises `SchemaError` for another program's database, and for one that has lost tables.
    """
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" in tables:
        versions = connection.execute(_VERSION).scalars().all()
        version = _known(versions[0] if len(versions) == 1 else None, connection)
        if version == SCHEMA_VERSION:
            _check_tables(tables, connection)
        return version
    if tables:
        raise SchemaError(f"the database {connection.engine.url.database} {_FOREIGN}")
    return None


def _check_tables(found: set[str], connection: Connection) -> None:
    """Raise `SchemaError` for a missing table: a damaged file that was saved in part has some."""
    missing = sorted(metadata.tables.keys() - found)
    if missing:
        raise SchemaError(
            f"the database {connection.engine.url.database} has no table {missing[0]}: it is "
            "damaged: stop all servers and put a copy of the data directory in its place"
        )


_VERSION = text("SELECT version_num FROM alembic_version")
_FOREIGN = "is another program's: name a file of its own with --database"


def _known(version: Any, connection: Connection) -> str:
    """Return the version. Raises `SchemaError` if it is unknown or newer than this release."""
    database = connection.engine.url.database
    if version is None or not re.fullmatch(r"[0-9]{4}", str(version)):
        raise SchemaError(f"the database {database} has the schema {version}: it {_FOREIGN}")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"the database {database} has schema {version}, made by a newer version of Sendback; "
            f"this one knows schemas up to {SCHEMA_VERSION}: install the newer version again, or "
            "put a copy of the data directory from before its upgrade in its place"
        )
    return str(version)


def _create_or_refuse(connection: Connection) -> None:
    found = schema_version(connection)
    if found is None:
        _create(connection)
    elif found != SCHEMA_VERSION:
        raise SchemaError(
            f"the database {connection.engine.url.database} has schema {found}, this version needs "
            f"{SCHEMA_VERSION}: stop all servers and run `sendback db upgrade`"
        )


def _create(connection: Connection) -> None:
    """Create the tables that the migrations create (a test compares them).

    Importing Alembic would take 0.8 s.
    """
    if connection.dialect.name == "postgresql":
        index_conditions()
    metadata.create_all(connection)
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(
        text("INSERT INTO alembic_version (version_num) VALUES (:version)"),
        {"version": SCHEMA_VERSION},
    )
