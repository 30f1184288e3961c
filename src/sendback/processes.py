"""Worker processes: started, started again when they die, told to stop.

Knows nothing of what a worker does. It forks, so it must be used before there are threads.
"""

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

# One that dies sooner than this would die again at once.
_CRASH_LOOP_SECONDS = 2.0

# Given what to call when it serves, runs until it is told to stop; answers the exit code.
Worker = Callable[[Callable[[], None]], int]


class Supervisor:
    """Runs each worker in a process of its own."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._running: dict[int, tuple[Worker, float]] = {}
        self._stopping = False

    def run(self, ready: Callable[[], None]) -> int:
        """Until SIGTERM or SIGINT; calls `ready` when every worker serves."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        for worker in self._workers:
            self._start(worker)
        ready()
        while self._running:
            process, status = os.wait()
            worker, started = self._running.pop(process)
            if not self._stopping:
                log.error("worker %d ended with status %d; starting another", process, status)
                self._start_again(worker, started)
        return 0

    def _start_again(self, worker: Worker, started: float) -> None:
        if time.monotonic() - started < _CRASH_LOOP_SECONDS:
            time.sleep(_CRASH_LOOP_SECONDS)
        if not self._stopping:
            self._start(worker)

    def _start(self, worker: Worker) -> None:
        """Returns when it serves, or has ended."""
        read_end, write_end = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(read_end)
            _become(worker, write_end)
        os.close(write_end)
        self._running[process] = (worker, time.monotonic())
        os.read(read_end, 1)
        os.close(read_end)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for process in self._running:
            os.kill(process, signal.SIGTERM)


def _become(worker: Worker, pipe: int) -> None:
    """The child's life; never returns."""

    def ready() -> None:
        os.write(pipe, b".")
        os.close(pipe)

    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        code = worker(ready)
    except Exception:
        log.exception("a worker broke")
    finally:
        logging.shutdown()
        os._exit(code)
