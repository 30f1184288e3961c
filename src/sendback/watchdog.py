"""A process that hangs says where, and does not stay.

`faulthandler` does both from C code: also while the interpreter's lock is held for ever, which no
thread or handler in Python can see. A timer is set again and again by the event loop; when that has
not happened for a while, the stacks of all threads are written to standard error and the process
ends with exit code 1, for systemd, Docker or another supervisor to start it again.
"""

import asyncio
import contextlib
import faulthandler
import os
import signal
from collections.abc import Callable

BEAT_SECONDS = 1.0


def dump_stacks_on_signal() -> None:
    """SIGUSR1 writes the stacks of all threads to standard error, whatever the process does."""
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # without standard error
        faulthandler.register(signal.SIGUSR1)


async def beat(sign: Callable[[], None]) -> None:
    """Call `sign` every second, for as long as the event loop turns."""
    while True:
        sign()
        await asyncio.sleep(BEAT_SECONDS)


class Watchdog:
    """Ends this process when `set` has not been called for `seconds`; 0: never."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def set(self) -> None:
        """The process lives."""
        self.end_in(self._seconds)

    def end_in(self, seconds: float) -> None:
        """The process ends after so many seconds, unless `set` or `end_in` is called again."""
        if seconds:
            with contextlib.suppress(OSError, RuntimeError, ValueError):  # without standard error
                faulthandler.dump_traceback_later(seconds, exit=True)

    def let_pause(self) -> None:
        """Ctrl-Z stops the process for as long as its user likes: that is no hanging."""
        faulthandler.cancel_dump_traceback_later()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.set()  # here it goes on after SIGCONT
