"""The state of a database: its schema, what an upgrade would do, who serves on it, its size."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection

from sendback.store.engine.nodes import Node, serving_nodes
from sendback.store.engine.schema import Migration, pending
from sendback.store.engine.sizes import Sizes, read_sizes
from sendback.store.engine.store import transact
from sendback.store.engine.tables import REQUIRED_SCHEMA
from sendback.store.engine.versions import Schema, newer_schema_error, read_schema


@dataclass(frozen=True, slots=True)
class Status:
    """`schema` is None for an empty database, which has no size."""

    schema: Schema | None
    pending: Sequence[Migration]
    nodes: Sequence[Node]
    sizes: Sizes | None

    def fields(self) -> Mapping[str, Any]:
        """Return the state as `db status --json` prints it."""
        schema = self.schema
        return {
            "schema": schema and schema.version,
            "oldest_schema_of_code": schema and schema.oldest,
            "needed_schema": REQUIRED_SCHEMA,
            "octets": self.sizes and self.sizes.octets,
            "pending": [
                {"migration": m.revision, "kind": str(m.kind), "title": m.title}
                for m in self.pending
            ],
            "nodes": [asdict(node) for node in self.nodes],
            "tables": [asdict(table) for table in self.sizes.tables] if self.sizes else [],
        }


def read_status(url: str) -> Status:
    """Return the state of the database. Raises `SchemaError`, `StoreUnavailableError`."""
    return transact(url, _read, writes=False)


def _read(connection: Connection) -> Status:
    schema = read_schema(connection)
    missing = pending(schema)
    if schema is None:
        return Status(None, missing, (), None)
    if not schema.is_usable and not missing:
        raise newer_schema_error(str(connection.engine.url.database), schema)
    if not schema.is_usable:  # tables that this version reads may be missing
        return Status(schema, missing, (), None)
    return Status(schema, missing, serving_nodes(connection), read_sizes(connection))
