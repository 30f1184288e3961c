"""The store: one thread that writes, one that reads, and the schema."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sendback.config.types import ContentAddress
from sendback.ids import process_name
from sendback.store.engine.changes import ChangeRecorder, Changes
from sendback.store.engine.channels import Channel
from sendback.store.engine.content.contents import Contents
from sendback.store.engine.datagrams import Datagrams
from sendback.store.engine.dialects import (
    described,
    is_sqlite,
    lock_schema,
    open_engine,
)
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.locking import has_row_locks
from sendback.store.engine.transactions import TransactionThread, Unit
from sendback.store.engine.versions import create_tables, usable_schema
from sendback.store.engine.wakeups import WakeupRecorder, Wakeups

T = TypeVar("T")


class Store:
    """The database and the large bodies. Open one a process; closing it ends its threads."""

    def __init__(
        self,
        url: str,
        data_dir: Path,
        content: ContentAddress | None = None,
        *,
        process: str | None = None,
        listen_url: str = "",
    ) -> None:
        """Open the store; large bodies are stored at `content`, by default in `data_dir`.

        `process` is the unique name of this process; `listen_url` is where to listen for messages
        of others, if not at `url` (see `notifications`). Raises `StoreUnavailableError` when a
        directory cannot be created.
        """
        self.contents = Contents(content or ContentAddress("directory"), url, data_dir, self)
        writing = open_engine(url, writes=True)
        self._reader = TransactionThread(
            open_engine(url, writes=False), "store-reader", writes=False
        )
        self.changes = Changes(ChangeRecorder(writing), self._reader.run)
        name = process or process_name()
        self.channel = _open_channel(url, listen_url, data_dir, name, self.write)
        self.wakeups = Wakeups(self.channel, self.changes.expire)
        self._recorder = WakeupRecorder(writing, self.wakeups)  # after the one of the changes
        self._writer = TransactionThread(
            writing, "store-writer", self._transaction_ended, locks_rows=has_row_locks(writing)
        )

    def _transaction_ended(self) -> None:
        self.changes.transaction_ended()
        self._recorder.transaction_ended()

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
        self.contents.close()
        self._writer.close()
        self.channel.close()
        self._reader.close()


def _open_channel(
    url: str,
    listen_url: str,
    data_dir: Path,
    name: str,
    write: Callable[[Unit[None]], Awaitable[None]],
) -> Channel:
    if is_sqlite(url):
        return Datagrams(data_dir, name)
    from sendback.store.engine.notifications import Notifications  # noqa: PLC0415

    return Notifications(name, listen_url or url, write)


def prepare_schema(url: str) -> None:
    """Create the tables of an empty database, or check that this code can use its schema.

    Raises `SchemaError`, `StoreUnavailableError`.
    """
    # Checked without the write lock: a command must not wait for the writer of a busy server.
    if transact(url, usable_schema, writes=False) is None:
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
        raise StoreUnavailableError(described(error, engine)) from error
    finally:
        engine.dispose()


def _create_or_refuse(connection: Connection) -> None:
    lock_schema(connection)
    if usable_schema(connection) is None:
        create_tables(connection)
