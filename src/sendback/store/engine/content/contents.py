"""The contents of an installation, for the event loop: which store has which, and the ledger.

`content/__init__` has the theory of operation. A content is known as its blob, `STORE:NAME`, in the
rows of messages. STORE is `database` or the key of an object store, whose URL is in the table
`content_stores`; a name without a store is a file in the directory.
"""

import asyncio
import io
import logging
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol, TypeVar

from sendback.config.readers import content_store
from sendback.config.settings import SettingError
from sendback.config.types import ContentAddress
from sendback.store.engine.content.database import DatabaseContents
from sendback.store.engine.content.directory import DirectoryContents, make_directory
from sendback.store.engine.content.ledger import (
    ClaimContent,
    FindStoreUrl,
    FindUnused,
    ForgetUnused,
    WithdrawClaim,
    WithdrawOldClaims,
)
from sendback.store.engine.content.model import (
    ContentGoneError,
    ContentStore,
    ContentUnavailableError,
)
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.transactions import Unit

log = logging.getLogger(__name__)

_DIRECTORY = ""
_DATABASE = "database"
# A slow store must not take the threads of everything else. Readers of bodies have other threads.
_WRITERS = 8
_HELPERS = 2
# Contents that wait for a thread, beyond which more are refused: their clients come again.
_MAX_WAITING = 64
# For one content. A client waits ten minutes for the reply to its mail (RFC 5321 §4.5.3.2.6).
_WRITE_SECONDS = 240.0
_CLAIM_SECONDS = 3600.0
_REMOVED_AT_ONCE = 200
_COPIED_OCTETS = 256 * 1024

T = TypeVar("T")


class Transactions(Protocol):
    """The store's transactions; see `Store`."""

    def write(self, unit: Unit[T], /) -> Awaitable[T]: ...

    def read(self, unit: Unit[T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True)
class StoredBody:
    """A body in a content store: its name there and its size in octets.

    Its functions block, and raise what `ContentStore.open` raises.
    """

    name: str
    size: int
    store: ContentStore
    spool_directory: Path

    def open(self) -> io.BufferedIOBase:
        """Return the body as a seekable file, which is read piece by piece."""
        return self.store.open(self.name, self.size)

    @contextmanager
    def as_file(self) -> Iterator[Path]:
        """Return the path of a file with the body, for the time of the context.

        A store without files makes a temporary copy. The file is missing if the content is.
        """
        path = self.store.path(self.name)
        if path is not None:
            yield path
            return
        with NamedTemporaryFile(dir=self.spool_directory) as copy:
            try:
                with self.open() as body:
                    shutil.copyfileobj(body, copy, _COPIED_OCTETS)
                copy.flush()
            except ContentGoneError:
                yield Path(copy.name + "-gone")
                return
            yield Path(copy.name)


class Contents:
    """The content stores of an installation. `close` it."""

    def __init__(
        self, address: ContentAddress, url: str, data_dir: Path, transactions: Transactions
    ) -> None:
        """Create the directories. `url` is the database. Raises `StoreUnavailableError`."""
        self.spool_directory = data_dir / "spool"
        make_directory(self.spool_directory)
        self._address = address
        self._url = url
        self._transactions = transactions
        self._directory = DirectoryContents(data_dir / "blobs")
        if address.kind == "directory":
            self._directory.prepare()
        self._stores: dict[str, ContentStore] = {_DIRECTORY: self._directory}
        self._opening = threading.Lock()
        self._writers = ThreadPoolExecutor(_WRITERS, "content-writer")
        self._helpers = ThreadPoolExecutor(_HELPERS, "content-helper")
        self._waiting = 0
        self._is_closed = False

    async def keep(self, name: str, pieces: Iterable[bytes]) -> str:
        """Store a new content and return its blob, durable and with a claim.

        The transaction that adds the message must confirm the claim (`ledger.confirm_claims`).
        `pieces` is iterated over in a thread. Raises `StoreUnavailableError`, `OSError`.
        """
        key = self._key
        blob = _blob(key, name)
        if self._waiting >= _MAX_WAITING:
            raise ContentUnavailableError("the content store is too slow: too many mails wait")
        address = self._address if self._address.is_object_store else None
        await self._transactions.write(ClaimContent(blob, address))
        self._waiting += 1
        try:
            await self._in(self._writers, lambda: self._write(key, name, pieces))
        except Exception:
            await self.discard(blob)
            raise
        finally:
            self._waiting -= 1
        return blob

    async def discard(self, blob: str) -> None:
        """Remove a content that was not added to a message; the sweep does what fails here."""
        try:
            if await self._transactions.write(WithdrawClaim(blob)):
                await self.remove([blob])
        except (StoreUnavailableError, OSError) as error:
            log.warning("content_not_removed name=%s: %s", blob, error)

    async def body(self, blob: str, size: int) -> StoredBody:
        """Return the body that is this blob. Raise `StoreUnavailableError`."""
        key, name = split_blob(blob)
        return StoredBody(name, size, await self._find(key), self.spool_directory)

    async def remove(self, blobs: Collection[str]) -> None:
        """Delete contents that are marked as unused, and their marks.

        Raise `StoreUnavailableError`, `OSError` for the first store that fails, after the others.
        """
        names: dict[str, list[str]] = defaultdict(list)
        for blob in blobs:
            key, name = split_blob(blob)
            names[key].append(name)
        failure: Exception | None = None
        for key, some in names.items():
            try:
                store = await self._find(key)
                await self._in(self._helpers, partial(store.remove, some))
            except (StoreUnavailableError, OSError) as error:
                failure = failure or error
            else:
                done = tuple(_blob(key, name) for name in some)
                await self._transactions.write(ForgetUnused(done))
        if failure is not None:
            raise failure

    async def remove_unused(self) -> int:
        """Remove what crashes have left, of all nodes; return how many contents.

        Raises as `remove` does.
        """
        await self._transactions.write(WithdrawOldClaims(_CLAIM_SECONDS))
        after, count = "", 0
        failure: Exception | None = None
        while found := await self._transactions.read(FindUnused(after, _REMOVED_AT_ONCE)):
            after = found[-1]
            try:
                await self.remove(found)
                count += len(found)
            except (StoreUnavailableError, OSError) as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return count

    def files_older_than(self, unix_time: float) -> Generator[str, None, None]:
        """Yield the names of files in the directory, last written before then."""
        return self._directory.older_than(unix_time)

    def remove_files(self, names: Sequence[str]) -> None:
        """Delete files of the directory."""
        self._directory.remove(names)

    def empty_spool(self, unix_time: float) -> None:
        """Delete the spool files that a crash left, of those last written before then.

        A spool file normally has no name: see `tempfile.TemporaryFile`.
        """
        for path in self.spool_directory.iterdir():
            try:
                if path.stat().st_mtime < unix_time:
                    path.unlink()
            except FileNotFoundError:
                continue

    async def clear(self) -> None:
        """Delete all contents in the directory and in the current store: for tests."""
        for key in {_DIRECTORY, self._key}:
            store = await self._find(key)
            await self._in(self._helpers, store.clear)

    def close(self) -> None:
        """End the threads and close the connections."""
        self._is_closed = True
        for pool in (self._writers, self._helpers):
            pool.shutdown(wait=False, cancel_futures=True)
        for store in self._stores.values():
            store.close()

    @property
    def _key(self) -> str:
        kind = self._address.kind
        if self._address.is_object_store:
            return self._address.key
        return _DATABASE if kind == _DATABASE else _DIRECTORY

    def _write(self, key: str, name: str, pieces: Iterable[bytes]) -> None:
        store = self._open(key, self._address)
        store.write(name, _in_time(pieces, time.monotonic() + _WRITE_SECONDS))

    async def _find(self, key: str) -> ContentStore:
        """Return the store with this key. Raise `StoreUnavailableError`."""
        known = self._stores.get(key)
        if known is not None:
            return known
        address = self._address
        if key not in {self._key, _DATABASE}:
            url = await self._transactions.read(FindStoreUrl(key))
            if url is None:
                raise ContentUnavailableError(f"there is no content store {key}")
            address = content_store(url)
        return await self._in(self._helpers, lambda: self._open(key, address))

    def _open(self, key: str, address: ContentAddress) -> ContentStore:
        """Return the store with this key, opened once. Raise `ContentUnavailableError`."""
        with self._opening:
            if key not in self._stores:
                try:
                    self._stores[key] = open_store(key, address, self._url)
                except SettingError as error:
                    raise ContentUnavailableError(str(error)) from None
            return self._stores[key]

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        if self._is_closed:
            raise ContentUnavailableError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def open_store(key: str, address: ContentAddress, url: str) -> ContentStore:
    """Open the store `database`, or the object store with this address. Raise `SettingError`."""
    if key == _DATABASE:
        return DatabaseContents(url)
    # It imports what only an extra has.
    from sendback.store.engine.content.objects import ObjectContents  # noqa: PLC0415

    return ObjectContents(address)


def _blob(key: str, name: str) -> str:
    return f"{key}:{name}" if key else name


def split_blob(blob: str) -> tuple[str, str]:
    """Return the key of the store and the name in it."""
    key, _, name = blob.rpartition(":")
    return key, name


def _in_time(pieces: Iterable[bytes], deadline: float) -> Iterator[bytes]:
    """Yield the pieces. Raise `ContentUnavailableError` once the deadline has passed."""
    for piece in pieces:
        if time.monotonic() > deadline:
            raise ContentUnavailableError("the content store took too long")
        yield piece
