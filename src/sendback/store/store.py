"""The store: one thread that writes, one that reads, and the schema."""

from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from sendback.store.blobs import Blobs
from sendback.store.dialects import open_engine
from sendback.store.errors import StoreUnavailableError
from sendback.store.tables import SCHEMA_VERSION, metadata
from sendback.store.transactions import TransactionThread, Unit

T = TypeVar("T")


class SchemaError(Exception):
    """The database has another schema than this version needs; says what to do."""


class Store:
    """Where everything durable goes. Open one a process; close it to end its threads."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self.blobs = Blobs(data_dir)
        self._writer = TransactionThread(open_engine(url, writes=True), "store-writer")
        self._reader = TransactionThread(open_engine(url, writes=False), "store-reader")

    async def write(self, unit: Unit[T]) -> T:
        """Runs the unit in a write transaction; when this returns, it is durable.

        Raises `StoreUnavailableError`.
        """
        return await self._writer.run(unit)

    async def read(self, unit: Unit[T]) -> T:
        """Runs the unit in a read transaction. Raises `StoreUnavailableError`."""
        return await self._reader.run(unit)

    def close(self) -> None:
        """Finishes what was submitted and ends the threads."""
        self._writer.close()
        self._reader.close()


def prepare_schema(url: str) -> None:
    """Makes the tables of an empty database; an existing one must have this version's schema.

    Raises `SchemaError`, `StoreUnavailableError`.
    """
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            found = schema_version(connection)
            if found is None:
                _create(connection)
            elif found != SCHEMA_VERSION:
                raise SchemaError(
                    f"the database has schema {found}, this version needs {SCHEMA_VERSION}: "
                    "stop all servers and run `sendback db upgrade`"
                )
    except DBAPIError as error:
        raise StoreUnavailableError(str(error.orig)) from error
    finally:
        engine.dispose()


def schema_version(connection: Connection) -> str | None:
    """The version that Alembic's table names; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    return str(found)


def _create(connection: Connection) -> None:
    """As the migrations would (a test compares them), without the time to import Alembic."""
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
