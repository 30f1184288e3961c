"""Long polls: a list is read again when something has happened, until it has an entry."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from sendback.inspection.errors import ApiError
from sendback.service.events.bus import EventBus

T = TypeVar("T")

# Long polls and event streams of a process: each has a connection.
MAX_WAITING = 100
# What other processes do is no event here: commands, other servers on the database.
_POLL_SECONDS = 1.0
# Between two readings, however much happens.
_PAUSE_SECONDS = 0.02


class Waiting:
    """Counts the requests that wait."""

    def __init__(self, events: EventBus) -> None:
        self._events = events
        self._count = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places for requests that wait. Raise `ApiError` if all are taken."""
        if self._count >= MAX_WAITING:
            text = f"{MAX_WAITING} requests wait already."
            raise ApiError(503, "TooManyWaiting", text, headers={"Retry-After": "1"})
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def until_any(
        self,
        read: Callable[[], Awaitable[Sequence[T]]],
        seconds: float,
        is_gone: Callable[[], Awaitable[bool]],
    ) -> Sequence[T]:
        """Return what `read` returns, once it is not empty or the time is over."""
        if not seconds:
            return await read()
        deadline = time.monotonic() + seconds
        with self.place(), self._events.subscribe() as subscription:
            while True:
                found = await read()
                left = deadline - time.monotonic()
                if found or left <= 0 or subscription.is_closed or await is_gone():
                    return found
                await subscription.next(min(left, _POLL_SECONDS))
                if not subscription.is_closed:
                    await asyncio.sleep(_PAUSE_SECONDS)
