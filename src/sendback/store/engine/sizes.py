"""How large the tables are, about: what `sendback db status` prints."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from sendback.store.engine.dialects import database_octets, table_sizes
from sendback.store.engine.tables import metadata


@dataclass(frozen=True, slots=True)
class TableSize:
    """The rows of a table, which may be an estimate, and its octets; None: unknown."""

    table: str
    rows: int
    octets: int | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """The tables that have rows, the largest number first, and the octets of the database."""

    tables: Sequence[TableSize]
    octets: int


def read_sizes(connection: Connection) -> Sizes:
    """Return how large the tables are. Reads little: no table of PostgreSQL is counted."""
    found = table_sizes(connection, sorted(metadata.tables))
    tables = [TableSize(name, rows, octets) for name, rows, octets in found if rows]
    tables.sort(key=lambda table: (-table.rows, table.table))
    return Sizes(tables, database_octets(connection))
