"""Pure computations that would block the event loop for too long.

They run in one thread, one after the other: several threads would take the interpreter's lock from
the event loop several times in a row. With one, the loop waits at most for the switch interval (1
ms: `serving`), or for one call of a function in C.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class HeavyWork:
    """A thread for long computations. It starts on demand."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "heavy")

    async def run(self, work: Callable[[], T], *, heavy: bool) -> T:
        """Return the result of the work, computed in the thread if it is heavy."""
        if not heavy:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """Finish the computation in progress and cancel the others."""
        self._thread.shutdown(cancel_futures=True)
