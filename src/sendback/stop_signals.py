"""The signals that end the server: SIGTERM, SIGINT and SIGHUP.

SIGHUP and SIGINT count unless they were ignored when the process began, as `nohup` and a shell's
`&` leave them. Imports little, so that a signal is heeded while all else is being imported.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether the process is to end."""

    def __init__(self) -> None:
        heeded = (signal.SIGINT, signal.SIGHUP)
        self.numbers = (
            signal.SIGTERM,
            *(number for number in heeded if signal.getsignal(number) is not signal.SIG_IGN),
        )
        self.is_made = False

    def exits_at_once(self) -> None:
        """From now on a signal ends the process with exit code 0: there is no work to end yet.

        No exception is raised: in a destructor or a callback of a library it would be lost.
        Whatever is being written survives this as it survives `kill -9`.
        """
        for number in self.numbers:
            signal.signal(number, self._exit)

    def is_noted(self) -> None:
        """From now on a signal sets `is_made`, and wakes up `signal.set_wakeup_fd`."""
        for number in self.numbers:
            signal.signal(number, self._note)

    @contextlib.contextmanager
    def blocked(self) -> Iterator[None]:
        """Signals wait until the end of the block."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.is_made = True

    def _exit(self, _number: int, _frame: FrameType | None) -> None:
        os._exit(0)
