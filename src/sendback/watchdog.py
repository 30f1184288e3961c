"""A watchdog: a process that hangs prints its stacks and ends.

`faulthandler` works in C code, also while the interpreter's lock is never released, which threads
and handlers in Python cannot detect. The event loop resets a timer every second. When it expires,
the stacks of all threads are written to standard error and the process ends with exit code 1, so
that systemd, Docker or another supervisor restarts it.
"""

import asyncio
import contextlib
import faulthandler
import os
import signal
from collections.abc import Callable

BEAT_SECONDS = 1.0


def dump_stacks_on_signal() -> None:
    """Make SIGUSR1 write the stacks of all threads to standard error, even if they hang."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # without standard error
        faulthandler.register(signal.SIGUSR1)


async def beat(report: Callable[[], None]) -> None:
    """Call `report` every second, as long as the event loop runs."""
    while True:
        report()
        await asyncio.sleep(BEAT_SECONDS)


class Watchdog:
    """Ends this process when `set` was not called for `seconds`; 0: never."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def set(self) -> None:
        """Restart the timer."""
        self.end_in(self._seconds)

    def end_in(self, seconds: float) -> None:
        """End the process after this time, unless `set` or `end_in` is called again."""
        if seconds:
            with contextlib.suppress(OSError, RuntimeError, ValueError):  # without standard error
                faulthandler.dump_traceback_later(seconds, exit=True)

    def pause(self) -> None:
        """Stop the process for Ctrl-Z, and the timer with it."""
        faulthandler.cancel_dump_traceback_later()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.set()  # after SIGCONT
