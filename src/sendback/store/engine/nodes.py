"""The processes that serve on the database, each with its version: rows of `installation`.

Theory of operation. A process that serves records itself every ten seconds, and deletes its row
when it stops. One that was not seen for a minute is gone. Dates are the database's, so the clocks
of the nodes do not matter. Rows of `installation` need no migration of their own.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, select

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.dialects import database_time
from sendback.store.engine.locking import put_row
from sendback.store.engine.tables import SCHEMA_VERSION, installation
from sendback.store.engine.versions import Schema, current_schema

RECORDED_EVERY = timedelta(seconds=10)
GONE_AFTER = timedelta(seconds=60)
_FORGOTTEN_AFTER = timedelta(days=1)
NODE_PREFIX = "node "


@dataclass(frozen=True, slots=True)
class Node:
    """A process that serves: `schema` is the newest schema that its code knows."""

    name: str
    version: str
    schema: str
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class RecordNode:
    """Record that this process serves; return the schema of the database, or None without one."""

    name: str
    version: str

    def __call__(self, connection: Connection, /) -> Schema | None:
        now = to_milliseconds(database_time(connection))
        key = installation.c.name == _key(self.name)
        found = connection.execute(select(installation.c.value).where(key)).scalar()
        fields = {
            "name": self.name,
            "version": self.version,
            "schema": SCHEMA_VERSION,
            "started_at": now if found is None else json.loads(found)["started_at"],
            "seen_at": now,
        }
        if found is None:
            _forget_old(connection)
        value = {"value": json.dumps(fields)}
        put_row(connection, installation, {"name": _key(self.name)}, value)
        return current_schema(connection)


@dataclass(frozen=True, slots=True)
class ForgetNode:
    """Delete the row of this process: it stops."""

    name: str

    def __call__(self, connection: Connection, /) -> None:
        connection.execute(delete(installation).where(installation.c.name == _key(self.name)))


def serving_nodes(connection: Connection) -> Sequence[Node]:
    """Return the processes that were seen in the last minute, sorted by name."""
    newest = database_time(connection) - GONE_AFTER
    return [node for node in _all(connection) if node.seen_at > newest]


def _forget_old(connection: Connection) -> None:
    """Delete the rows of processes that were killed long ago."""
    oldest = database_time(connection) - _FORGOTTEN_AFTER
    for node in _all(connection):
        if node.seen_at < oldest:
            ForgetNode(node.name)(connection)


def _all(connection: Connection) -> Sequence[Node]:
    query = select(installation.c.value).where(installation.c.name.startswith(NODE_PREFIX))
    found = map(json.loads, connection.execute(query).scalars())
    nodes = [
        Node(
            name=row["name"],
            version=row["version"],
            schema=row["schema"],
            started_at=from_milliseconds(row["started_at"]),
            seen_at=from_milliseconds(row["seen_at"]),
        )
        for row in found
    ]
    return sorted(nodes, key=lambda node: node.name)


def _key(name: str) -> str:
    return NODE_PREFIX + hashlib.sha256(name.encode()).hexdigest()[:24]
