"""The check of the store: SQLite's own checks of its file, and whether each body exists."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, select

from sendback.store.engine.blobs import Blobs
from sendback.store.engine.dialects import integrity_problems
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import transact
from sendback.store.engine.tables import messages
from sendback.store.engine.versions import usable_schema

MAX_PROBLEMS = 100


def check_store(url: str, data_dir: Path) -> list[str]:
    """Return up to `MAX_PROBLEMS` problems, one line each.

    Reads the whole database; servers may be running. Raises `SchemaError`,
    `StoreUnavailableError`.
    """
    blobs = Blobs(data_dir)
    problems: list[str] = []

    def check(connection: Connection) -> None:
        usable_schema(connection)
        problems.extend(integrity_problems(connection, MAX_PROBLEMS))
        problems.extend(islice(_missing(connection, blobs), MAX_PROBLEMS))

    try:
        transact(url, check, writes=False)
    except StoreUnavailableError:
        # The problems found so far explain more than the error that a damaged page raised.
        if not problems:
            raise
    return problems[:MAX_PROBLEMS]


def _missing(connection: Connection, blobs: Blobs) -> Iterator[str]:
    named = (
        select(messages.c.message_id, messages.c.blob)
        .where(messages.c.blob.is_not(None))
        .execution_options(yield_per=1000)
    )
    for row in connection.execute(named):
        if not blobs.has(row.blob):
            yield f"the body of message {row.message_id} is gone: there is no blob {row.blob}"
