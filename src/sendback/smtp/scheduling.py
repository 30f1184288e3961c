"""How connections share the event loop and the store. No I/O.

Each piece of work has a cost in units of roughly 10 µs. A connection with new octets processes them
at once, up to a slice, while little has been done in this round of the event loop. The rest waits
in a queue, which is served round-robin, a few units at a time with a pause between. The pause lets
the loop serve other connections, and the store's threads run: a thread that computes without a
pause makes each store thread wait for the interpreter lock (`sys.getswitchinterval`), many times in
a transaction.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

SLICE_UNITS = 10
_ROUND_UNITS = 300
_BATCH_UNITS = 100
_PAUSE_SECONDS = 0.001


class SlicedTask(Protocol):
    """An object whose work can be done in slices."""

    def run_slice(self) -> int:
        """Do about a slice of work; return its cost in units. Queue again if some is left."""

    def fail(self, error: Exception) -> None:
        """Handle an exception that `run_slice` raised."""


class Scheduler:
    """The queue of tasks, and the units used in this round of the event loop."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._call_later = call_later
        self._waiting: deque[SlicedTask] = deque()
        self._is_scheduled = False
        self._round = -1.0
        self.used = 0  # units of work done at once in this round; the task adds them

    def has_capacity(self, now: float) -> bool:
        """Whether a task may run at once.

        `now` is the loop's time. uvloop returns the same time within a round; with asyncio's loop
        it differs in each call, so this limit has no effect there.
        """
        if now != self._round:
            self._round = now
            self.used = 0
        return self.used < _ROUND_UNITS

    def queue(self, task: SlicedTask) -> None:
        """Run a slice of the task later. A task must not be queued twice."""
        self._waiting.append(task)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_later(_PAUSE_SECONDS, self._run)

    def _run(self) -> None:
        left = _BATCH_UNITS
        for _ in range(len(self._waiting)):
            if left <= 0:
                break
            left -= _run_slice(self._waiting.popleft())
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            self._call_later(_PAUSE_SECONDS, self._run)


def _run_slice(task: SlicedTask) -> int:
    """Run a slice; an exception of one task must not stop the others."""
    try:
        return task.run_slice()
    except Exception as error:  # noqa: BLE001 - any exception is the task's to handle
        task.fail(error)
        return SLICE_UNITS


class ConcurrencyLimit:
    """A semaphore, first come first served: `asyncio.Semaphore` costs more when nobody waits."""

    def __init__(self, capacity: int) -> None:
        self._free = capacity
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_acquire(self) -> bool:
        """Acquire a slot if one is free."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    async def acquire(self) -> None:
        """Wait for a slot. Call it only after `try_acquire` returned False."""
        slot = asyncio.get_running_loop().create_future()
        self._waiting.append(slot)
        try:
            await slot
        except asyncio.CancelledError:
            if slot.done() and not slot.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Pass the slot to the first that waits, or free it."""
        while self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                return
        self._free += 1
