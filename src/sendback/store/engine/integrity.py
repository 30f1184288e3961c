"""The check of the store: SQLite's checks of its file, rows that are lost, bodies that are."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from sendback.config.readers import content_store
from sendback.config.types import ContentAddress
from sendback.store.engine.content.contents import open_store, split_blob
from sendback.store.engine.content.directory import DirectoryContents
from sendback.store.engine.content.ledger import FindStoreUrl
from sendback.store.engine.content.model import ContentStore
from sendback.store.engine.dialects import integrity_problems
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.leasing import QUEUED, SUSPECT_TRIES
from sendback.store.engine.store import transact
from sendback.store.engine.tables import (
    destinations,
    messages,
    outbox,
    processing,
    rule_set_versions,
)
from sendback.store.engine.versions import usable_schema

MAX_PROBLEMS = 100


def check_store(url: str, data_dir: Path) -> list[str]:
    """Return up to `MAX_PROBLEMS` problems, one line each.

    Reads the whole database; servers may be running. Raises `SchemaError`,
    `StoreUnavailableError`.
    """
    stores = _ContentStores(url, data_dir)
    problems: list[str] = []

    def check(connection: Connection) -> None:
        usable_schema(connection)
        problems.extend(integrity_problems(connection, MAX_PROBLEMS))
        problems.extend(islice(_lost(connection), MAX_PROBLEMS))
        problems.extend(islice(_missing(connection, stores), MAX_PROBLEMS))

    try:
        transact(url, check, writes=False)
    except StoreUnavailableError:
        # The problems found so far explain more than the error that a damaged page raised.
        if not problems:
            raise
    finally:
        stores.close()
    return problems[:MAX_PROBLEMS]


def _lost(connection: Connection) -> Iterator[str]:
    """Yield what no worker will find, or be able to process: there should never be any."""
    queued: ColumnElement[str] = literal_column(f"'{QUEUED}'")
    unvisited = (
        select(outbox.c.domain, func.count().label("waiting"))
        .outerjoin(destinations, destinations.c.domain == outbox.c.domain)
        .where(
            outbox.c.state == queued,
            outbox.c.tries < SUSPECT_TRIES,
            destinations.c.due_at.is_(None),
        )
        .group_by(outbox.c.domain)
        .order_by(outbox.c.domain)
    )
    for row in connection.execute(unvisited):
        yield (
            f"no worker looks for the {row.waiting} messages to {row.domain}: run `sendback outbox "
            f"pause {row.domain}`, then `sendback outbox resume {row.domain}`"
        )
    ruleless = (
        select(processing.c.message_id)
        .outerjoin(rule_set_versions, rule_set_versions.c.version == processing.c.version)
        .where(processing.c.state == queued, rule_set_versions.c.version.is_(None))
        .order_by(processing.c.message_id)
        .limit(MAX_PROBLEMS)
    )
    for name in connection.execute(ruleless).scalars():
        yield f"the rules by which message {name} is to be processed are gone"


def _missing(connection: Connection, stores: "_ContentStores") -> Iterator[str]:
    length = func.length(messages.c.header)
    named = (
        select(messages.c.message_id, messages.c.blob, (messages.c.size - length).label("octets"))
        .where(messages.c.blob.is_not(None))
        .execution_options(yield_per=1000)
    )
    for row in connection.execute(named):
        found = stores.size(connection, row.blob)
        if found is None:
            yield f"the body of message {row.message_id} is gone: there is no blob {row.blob}"
        elif found != row.octets:
            yield (
                f"the body of message {row.message_id} is damaged: the blob {row.blob} has {found} "
                f"octets, not {row.octets}"
            )


class _ContentStores:
    """The content stores, each opened when the first body in it is checked."""

    def __init__(self, url: str, data_dir: Path) -> None:
        self._url = url
        self._stores: dict[str, ContentStore] = {"": DirectoryContents(data_dir / "blobs")}

    def size(self, connection: Connection, blob: str) -> int | None:
        """Return the size of a body. Raises `StoreUnavailableError`, `SettingError`."""
        key, name = split_blob(blob)
        if key not in self._stores:
            address = ContentAddress(key)
            if key != "database":
                url = FindStoreUrl(key)(connection)
                if url is None:
                    return None
                address = content_store(url)
            self._stores[key] = open_store(key, address, self._url)
        return self._stores[key].size(name)

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
