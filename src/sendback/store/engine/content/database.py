"""Contents as rows of the database, in chunks: one PostgreSQL is all that several nodes share.

Each chunk is a transaction of its own, on a connection of its own: a content of 40 MB in one
transaction would hold SQLite's write lock, or the writer of this process, for a second, while other
mail waits. The message's row follows in its own transaction, once all chunks are committed; until
then the content has a claim (`ledger`), so a crash in between leaves chunks that are swept.
"""

import io
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TypeVar

from sqlalchemy import Connection, Engine, Executable, delete, func, insert, select
from sqlalchemy import exc as errors

from sendback.store.engine.content.model import (
    BlockFile,
    ContentGoneError,
    ContentUnavailableError,
    check_size,
    in_blocks,
)
from sendback.store.engine.dialects import failure_of, open_engine, read_in_binary
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.tables import content_chunks

CHUNK_OCTETS = 512 * 1024
_BUFFER_OCTETS = 64 * 1024
# Chunks that one transaction deletes: 4 MiB, as `sweeping.MAX_OCTETS`.
_DELETED_CHUNKS = 8

T = TypeVar("T")

_columns = content_chunks.c


class DatabaseContents:
    """The table `content_chunks`."""

    def __init__(self, url: str) -> None:
        self._url = url
        # One chunk at a time: more connections would take turns at the database's disk.
        self._writing = threading.Lock()

    @cached_property
    def _writer(self) -> Engine:
        return open_engine(self._url, writes=True)

    @cached_property
    def _reader(self) -> Engine:
        engine = open_engine(self._url, writes=False)
        read_in_binary(engine)
        return engine

    def write(self, name: str, pieces: Iterable[bytes]) -> None:
        number = 0
        for number, octets in enumerate(in_blocks(pieces, CHUNK_OCTETS), 1):
            self._write(_insert(name, number - 1, octets))
        if number == 0:  # an empty content is there too
            self._write(_insert(name, 0, b""))

    def open(self, name: str, size: int) -> io.BufferedIOBase:
        found, largest = self._read(lambda connection: _sizes(connection, name))
        check_size(name, None if largest is None else found, size)
        step = largest or CHUNK_OCTETS  # of all chunks but the last

        def read_block(offset: int) -> tuple[int, bytes]:
            number = offset // step
            octets = self._read(lambda connection: _chunk(connection, name, number))
            if octets is None:  # deleted since
                raise ContentGoneError(f"the content {name} is not there any more")
            return number * step, octets

        return io.BufferedReader(BlockFile(size, read_block), _BUFFER_OCTETS)

    def size(self, name: str) -> int | None:
        found, largest = self._read(lambda connection: _sizes(connection, name))
        return None if largest is None else found

    def path(self, name: str) -> None:
        """Return None: there are no files."""

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            self._remove(name)

    def _remove(self, name: str) -> None:
        last = self._read(lambda connection: _last_number(connection, name))
        if last is None:
            return
        for number in range(0, last + 1, _DELETED_CHUNKS):
            some = delete(content_chunks).where(
                _columns.name == name,
                _columns.number >= number,
                _columns.number < number + _DELETED_CHUNKS,
            )
            self._write(some)

    def clear(self) -> None:
        self._write(delete(content_chunks))

    def check(self) -> None:
        """Do nothing: the database has been checked with its schema."""

    def close(self) -> None:
        for name in ("_writer", "_reader"):
            if name in self.__dict__:
                getattr(self, name).dispose()

    def _write(self, statement: Executable) -> None:
        with self._writing:
            _transact(self._writer, lambda connection: connection.execute(statement))

    def _read(self, unit: Callable[[Connection], T]) -> T:
        return _transact(self._reader, unit)


def _transact(engine: Engine, unit: Callable[[Connection], T]) -> T:
    """Return the unit's result. Raise `ContentUnavailableError`."""
    try:
        with engine.begin() as connection:
            return unit(connection)
    except (errors.DBAPIError, StoreUnavailableError) as error:
        failure = failure_of(error, engine)
        if failure is None or failure.reason is None:
            raise
        raise ContentUnavailableError(failure.reason) from error
    except errors.TimeoutError as error:  # every connection of the pool is in use
        raise ContentUnavailableError(f"the database {engine.url.database}: {error}") from error


def _insert(name: str, number: int, octets: bytes) -> Executable:
    return insert(content_chunks).values(name=name, number=number, octets=octets)


def _sizes(connection: Connection, name: str) -> tuple[int, int | None]:
    """Return the octets of all chunks, and of the largest or None. They are not read for that."""
    length = func.length(_columns.octets)
    query = select(func.sum(length), func.max(length)).where(_columns.name == name)
    total, largest = connection.execute(query).one()
    return int(total or 0), largest


def _chunk(connection: Connection, name: str, number: int) -> bytes | None:
    query = select(_columns.octets).where(_columns.name == name, _columns.number == number)
    octets: bytes | None = connection.execute(query).scalar()
    return octets


def _last_number(connection: Connection, name: str) -> int | None:
    query = select(func.max(_columns.number)).where(_columns.name == name)
    number: int | None = connection.execute(query).scalar()
    return number
