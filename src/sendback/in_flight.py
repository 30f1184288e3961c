"""Concurrent requests for the same value share one task."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class InFlight(Generic[K, V]):
    """The values that are being found, by key."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    async def share(self, key: K, find: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """Return the result of `find`, called once for concurrent requests, or raise its exception.

        Cancelling one request does not cancel the others.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(find())
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Cancel all tasks."""
        for task in self._tasks.values():
            task.cancel()
