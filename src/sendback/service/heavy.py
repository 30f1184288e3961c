"""Pure computations that take longer than the event loop may be held for one client.

They run in one thread, one after the other: several would take the interpreter's lock from the
event loop several times in a row. Beside one, the loop waits for it at most for the switch interval
(1 ms: `serving`), or for one call of a function in C.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class HeavyWork:
    """The thread. It starts when it is first needed."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "heavy")

    async def run(self, work: Callable[[], T], *, heavy: bool) -> T:
        """Return the result of the work: from the thread if it is heavy, else at once."""
        if not heavy:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Let the work that has begun end, and nothing else begin."""
        self._thread.shutdown(cancel_futures=True)
