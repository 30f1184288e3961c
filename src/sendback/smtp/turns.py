"""How connections share the event loop and the store. No I/O.

Every piece of work has a cost in units of roughly 10 µs. A connection with new octets works on
them at once, up to a slice, as long as little has been done in this round of the event loop. What
is left then waits in a queue, which is served in turn, a few units at a time with a pause between.
The pause lets other connections in, and the threads of the store: a thread that computes without
end makes each of theirs wait for the interpreter (`sys.getswitchinterval`), many times in a
transaction.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

SLICE_UNITS = 10
_ROUND_UNITS = 300
_TURN_UNITS = 100
_PAUSE_SECONDS = 0.001


class Worker(Protocol):
    """Something with work that can be done in pieces."""

    def take_turn(self) -> int:
        """Do about a slice of work; return its cost in units. Queue again if some is left."""

    def break_off(self, error: Exception) -> None:
        """Its turn has raised this."""


class Turns:
    """The queue, and what has been spent in this round of the event loop."""

    def __init__(self, call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._call_later = call_later
        self._waiting: deque[Worker] = deque()
        self._is_scheduled = False
        self._round = -1.0
        self.spent = 0  # units of work done at once in this round; whoever works adds to it

    def may_go_first(self, now: float) -> bool:
        """Whether a connection may work at once. `now` is the loop's time, one for each round."""
        if now != self._round:
            self._round = now
            self.spent = 0
        return self.spent < _ROUND_UNITS

    def queue(self, worker: Worker) -> None:
        """Let it take its turn later. A worker must not be queued twice."""
        self._waiting.append(worker)
        if not self._is_scheduled:
            self._is_scheduled = True
            self._call_later(_PAUSE_SECONDS, self._run)

    def _run(self) -> None:
        left = _TURN_UNITS
        for _ in range(len(self._waiting)):
            if left <= 0:
                break
            left -= _give_turn(self._waiting.popleft())
        self._is_scheduled = bool(self._waiting)
        if self._is_scheduled:
            self._call_later(_PAUSE_SECONDS, self._run)


def _give_turn(worker: Worker) -> int:
    """One that breaks costs the others nothing."""
    try:
        return worker.take_turn()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this worker's
        worker.break_off(error)
        return SLICE_UNITS


class Gate:
    """How many may do something at a time; the others wait in the order in which they came.

    As `asyncio.Semaphore`, without its cost where nobody has to wait.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: deque[asyncio.Future[None]] = deque()

    def try_enter(self) -> bool:
        """Take a place if there is one."""
        if self._places == 0:
            return False
        self._places -= 1
        return True

    async def enter(self) -> None:
        """Wait for a place."""
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give the place to the next who waits."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._places += 1
