"""Delete all rows: an empty server again, for tests."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete

from sendback.store.engine.tables import content_stores, installation, metadata

_KEPT = (installation, content_stores)


@dataclass(frozen=True, slots=True)
class ClearTables:
    """Delete the rows of all tables but the fingerprint of the secret and the content stores.

    `then` is run in the same transaction, so that nobody finds a server without its first account.
    """

    then: Callable[[Connection], object]

    def __call__(self, connection: Connection, /) -> None:
        for table in reversed(metadata.sorted_tables):
            if table not in _KEPT:
                connection.execute(delete(table))
        self.then(connection)
