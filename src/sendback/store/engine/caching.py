"""A cache of what the store holds that is never older than the store's changes.

It has no lifetime of its own: see `changes.py`. All methods are for one event loop.
"""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from sendback.store.engine.changes import Changes

K = TypeVar("K")
V = TypeVar("V")


class StoreCache(Generic[K, V]):
    """Up to `size` values by key. A value that is missing means nothing."""

    def __init__(self, changes: Changes, size: int) -> None:
        self._changes = changes
        self._size = size
        # In order of use. Not `cachetools.LRUCache`: each RCPT looks up a dozen values, and its
        # lookups cost five times as much.
        self._entries: dict[K, V] = {}
        self._count = changes.count

    def known(self, key: K) -> V | None:
        """Return the value as the store has it now; None if unknown: call `get`."""
        if not self._changes.is_fresh or self._count != self._changes.count:
            return None
        found = self._entries.pop(key, None)
        if found is not None:
            self._entries[key] = found
        return found

    async def get(self, key: K, find: Callable[[], Awaitable[V | None]]) -> V | None:
        """Return the value, or what `find` reads from the store; None is not cached.

        Raises what `find` raises, and `StoreUnavailableError`.
        """
        await self._changes.refresh()
        found = self.known(key)
        if found is not None:
            return found
        count = self._changes.count
        found = await find()
        if found is not None and count == self._changes.count:
            self._put(key, found, count)
        return found

    def _put(self, key: K, value: V, count: int) -> None:
        if count != self._count:
            self._entries.clear()
            self._count = count
        self._entries.pop(key, None)
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = value
