"""Which schemas this code can use: what decides whether a node may serve on a database.

Theory of operation. A schema is named by its newest migration. A migration either expands the
schema (it only adds what older code ignores) or contracts it (it removes what the newest code no
longer uses). So two numbers describe a database: the newest migration that was run, in Alembic's
table, and the oldest schema whose code may still use it, in `installation`. An expanding migration
changes only the first. Code of schema S can use a database if all expanding migrations up to S were
run, and the oldest schema is not newer than S.

Here is no Alembic, whose import takes 0.8 s: `schema.py` runs the migrations.
"""

import re
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, inspect, select, text

from sendback.errors import SendbackError
from sendback.store.engine.dialects import tune
from sendback.store.engine.tables import (
    OLDEST_SCHEMA,
    REQUIRED_SCHEMA,
    SCHEMA_VERSION,
    index_conditions,
    installation,
    metadata,
)

# The version of a database that `sendback db copy` is filling begins so: no server may use it.
UNFINISHED = "copying "
# Migrations up to this one were written for servers that are stopped.
LAST_WITH_STOPPED_SERVERS = "0008"
OLDEST = "oldest_schema"
_FOREIGN = "is another program's: name one of its own with --database"


class SchemaError(SendbackError):
    """The database has a schema that this version cannot use; the text says what to do."""


class UnfinishedCopyError(SchemaError):
    """The database has a part of a copy."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The newest migration that was run, and the oldest schema whose code may use the database."""

    version: str
    oldest: str

    @property
    def is_usable(self) -> bool:
        """Whether this code can use the database."""
        return self.version >= REQUIRED_SCHEMA and self.oldest <= SCHEMA_VERSION


def read_schema(connection: Connection) -> Schema | None:
    """Return the schema of the database, or None for an empty database.

    Raises `SchemaError` for another program's database, for one that has lost tables, and for an
    unfinished copy.
    """
    tables = set(inspect(connection).get_table_names())
    if "alembic_version" not in tables:
        if tables:
            raise SchemaError(f"the database {_name(connection)} {_FOREIGN}")
        return None
    versions = connection.execute(_SELECT_VERSION).scalars().all()
    version = _known(versions[0] if len(versions) == 1 else None, connection)
    # Without such a row an earlier version made it: only code of the same schema may use it.
    oldest = _recorded_oldest(connection) if installation.name in tables else None
    schema = Schema(version, oldest or version)
    if schema.is_usable:
        _check_tables(tables, connection)
    return schema


def current_schema(connection: Connection) -> Schema | None:
    """Return the schema of a database that was usable, without looking for its tables.

    None: it has lost its version, as while a copy replaces it.
    """
    version = version_of(connection)
    if version is None or not re.fullmatch(r"[0-9]{4}", version):
        return None
    return Schema(version, _recorded_oldest(connection) or version)


def version_of(connection: Connection) -> str | None:
    """Return what Alembic's table has."""
    return connection.execute(_SELECT_VERSION).scalar()


def usable_schema(connection: Connection) -> Schema | None:
    """Return the schema of the database, or None for an empty database.

    Raises `SchemaError`, also for a schema that this code cannot use.
    """
    schema = read_schema(connection)
    if schema is None or schema.is_usable:
        return schema
    name = _name(connection)
    if schema.version < REQUIRED_SCHEMA:
        stop = "stop all servers and " if schema.version < LAST_WITH_STOPPED_SERVERS else ""
        raise SchemaError(
            f"the database {name} has schema {schema.version}, this version needs "
            f"{REQUIRED_SCHEMA}: {stop}run `sendback db upgrade`"
        )
    raise newer_schema_error(name, schema)


def newer_schema_error(database: str, schema: Schema) -> SchemaError:
    """Return the error for a database that only newer code can use."""
    made = f"has schema {schema.version}, made by a newer version of Sendback"
    if schema.oldest < schema.version:
        made += f", and only code of schema {schema.oldest} or newer may use it"
    return SchemaError(
        f"the database {database} {made}; this one knows schemas up to {SCHEMA_VERSION}: install "
        "the newer version again, or put a backup from before its upgrade in its place"
    )


def create_tables(connection: Connection) -> None:
    """Create the tables that the migrations create (a test compares them), in an empty database.

    Importing Alembic would take 0.8 s.
    """
    if connection.dialect.name == "postgresql":
        index_conditions()
    metadata.create_all(connection)
    create_version_table(connection)
    set_schema(connection, SCHEMA_VERSION, OLDEST_SCHEMA)
    tune(connection)


def create_version_table(connection: Connection) -> None:
    """Create Alembic's table."""
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )


def set_schema(connection: Connection, version: str, oldest: str | None = None) -> None:
    """Record a migration that was run; `oldest` as in `Schema`, None to leave it as it is."""
    connection.execute(text("DELETE FROM alembic_version"))
    connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": version})
    if oldest is not None:
        connection.execute(delete(installation).where(installation.c.name == OLDEST))
        connection.execute(insert(installation), {"name": OLDEST, "value": oldest})


_SELECT_VERSION = text("SELECT version_num FROM alembic_version")


def _known(version: str | None, connection: Connection) -> str:
    name = _name(connection)
    if version is not None and version.startswith(UNFINISHED):
        raise UnfinishedCopyError(
            f"the copy into the database {name} is not complete: run `sendback db copy` again"
        )
    if version is None or not re.fullmatch(r"[0-9]{4}", version):
        raise SchemaError(f"the database {name} has the schema {version}: it {_FOREIGN}")
    return version


def _recorded_oldest(connection: Connection) -> str | None:
    """Return the oldest schema whose code may use the database, or None if there is no such row."""
    query = select(installation.c.value).where(installation.c.name == OLDEST)
    return connection.execute(query).scalar()


def _check_tables(found: set[str], connection: Connection) -> None:
    """Raise `SchemaError` for a missing table: a damaged file that was saved in part has some."""
    missing = sorted(metadata.tables.keys() - found)
    if missing:
        raise SchemaError(
            f"the database {_name(connection)} has no table {missing[0]}: it is damaged: stop all "
            "servers and put a copy of the data directory in its place"
        )


def _name(connection: Connection) -> str:
    return str(connection.engine.url.database)
