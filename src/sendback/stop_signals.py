"""The signals that end the server: SIGTERM, SIGINT and SIGHUP.

SIGHUP and SIGINT are handled unless they were ignored at the start (`nohup`, a shell's `&`).
This module imports little, so that signals are handled while other modules are imported.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Records whether a signal has requested the end of the process."""

    def __init__(self) -> None:
        optional = (signal.SIGINT, signal.SIGHUP)
        self.numbers = (
            signal.SIGTERM,
            *(number for number in optional if signal.getsignal(number) is not signal.SIG_IGN),
        )
        self.is_made = False

    def exit_at_once(self) -> None:
        """Make a signal end the process with exit code 0, as no work is in progress yet.

        An exception could be lost in a destructor or a callback of a library. Writes in progress
        are as safe as with `kill -9`.
        """
        for number in self.numbers:
            signal.signal(number, self._exit)

    def record_signals(self) -> None:
        """Make a signal set `is_made` and write to `signal.set_wakeup_fd`."""
        for number in self.numbers:
            signal.signal(number, self._note)

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Block the signals until the end of the `with` block."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_made = True

    def _exit(self, _number: int, _frame: FrameType | None) -> None:
        os._exit(0)
