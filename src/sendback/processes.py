"""The supervisor of worker processes: it starts, monitors, restarts and stops them.

Theory of operation. The supervisor forks its workers and then waits for signals (through
`signal.set_wakeup_fd`), for octets in the pipe that each worker writes to, and for the next
timeout. So no event is missed or delayed by another.

- A worker reports that it serves, and then sends a heartbeat every second from its event loop. One
  whose heartbeat is overdue gets SIGUSR1, to dump its stacks (`faulthandler`), and is killed.
- If a worker ends before all have served for the first time, the server stops with its reason. One
  that ends later is restarted, with exponential backoff while workers end early.
- Workers end with their supervisor, even by `kill -9`: Linux kills them. Elsewhere they watch the
  read end of a pipe whose write end only the supervisor has; end of file means that it is gone.

This module does not depend on what a worker does. It forks, so use it before starting threads.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

from sendback.errors import SendbackError
from sendback.stop_signals import StopRequest
from sendback.watchdog import dump_stacks_on_signal

log = logging.getLogger(__name__)

_READY = b"+"
_BEAT = b"."
_FAILED = b"!"  # and the reason
_MAX_REASON = 1000  # octets

# How long the start of a worker may take.
_START_SECONDS = 60.0
# Between SIGUSR1, which dumps the stacks, and SIGKILL.
_DUMP_SECONDS = 1.0
# From SIGTERM to SIGKILL. A worker ends by itself in less (`serving`).
_STOP_SECONDS = 20.0
# A worker that ran this long is restarted without delay.
_LONG_LIFE_SECONDS = 60.0
_LONGEST_WAIT_SECONDS = 60.0
_TICK_SECONDS = 1.0
# A supervisor that did not run for this long was paused with its workers (Ctrl-Z, docker pause), so
# missing heartbeats do not count.
_PAUSE_SECONDS = 3.0

_PR_SET_PDEATHSIG = 1


class WorkerFailedError(SendbackError):
    """A worker ended before it served; the text is the reason."""


class Lifeline:
    """A worker's connection to its supervisor."""

    def __init__(self, supervisor: int, status: int) -> None:
        """`supervisor` and `status` are the pipes' descriptors."""
        self.supervisor = supervisor  # becomes readable when the supervisor is gone
        self._status = status

    def ready(self) -> None:
        """Report that the worker serves."""
        self._write(_READY)

    def beat(self) -> None:
        """Report that the worker's event loop runs."""
        self._write(_BEAT)

    def failed(self, reason: str) -> None:
        """Report why the worker ends without serving."""
        self._write(_FAILED + reason.encode()[:_MAX_REASON])

    def _write(self, octets: bytes) -> None:
        # No reader: the supervisor is gone, or was paused until the pipe was full.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._status, octets)


# Runs until a stop request or the end of the supervisor; returns the exit code.
Worker = Callable[[Lifeline, StopRequest], int]


@dataclass(slots=True)
class _Slot:
    """One worker and its replacements. Times are from `time.monotonic`."""

    process: int = 0  # 0: not running
    status: int = -1  # the pipe that it writes to
    started: float = 0.0
    last_beat: float = 0.0
    is_ready: bool = False
    reason: str = ""
    dumped_at: float | None = None
    is_killed: bool = False
    early_ends: int = 0
    start_at: float | None = None


class Supervisor:
    """Runs each worker in a process of its own."""

    def __init__(
        self, worker: Worker, count: int, stop: StopRequest, *, beat_timeout: float
    ) -> None:
        """`beat_timeout`: seconds without a heartbeat until a worker is killed; 0: never."""
        self._worker = worker
        self._slots = [_Slot() for _ in range(count)]
        self._stop = stop
        self._beat_timeout = beat_timeout
        self._selector = selectors.DefaultSelector()
        self._lifeline = os.pipe()
        self._end_with_parent = _parent_death_signal()
        self._has_served = False
        self._failure: str | None = None
        self._kill_at: float | None = None  # None: it is not stopping
        self._last_tick = time.monotonic()

    def run(self, ready: Callable[[], None], stopping: Callable[[], None]) -> int:
        """Run until a signal stops it; return the exit code.

        `ready` is called when every worker serves, `stopping` before they get SIGTERM. Raise
        `WorkerFailedError` when a worker could not serve, after the others have been stopped.
        """
        dump_stacks_on_signal()
        with self._woken_by_signals() as wake_up:
            try:
                for slot in self._slots:
                    self._start(slot)
                while self._kill_at is None or any(slot.process for slot in self._slots):
                    self._wait(wake_up)
                    self._reap()
                    self._handle_stop(stopping)
                    self._announce(ready)
                    self._check_timeouts()
            except BaseException:
                self._kill_all()
                raise
        if self._failure is not None:
            raise WorkerFailedError(self._failure)
        return 0

    # --- events ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[socket.socket]:
        """Yield a socket that becomes readable when a signal arrives."""
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # an ignored signal does not write to it
        self._stop.record_signals()
        self._selector.register(reader, selectors.EVENT_READ)
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(before)
            self._selector.close()
            reader.close()
            writer.close()

    def _wait(self, wake_up: socket.socket) -> None:
        for key, _ in self._selector.select(_TICK_SECONDS):
            if key.fileobj is wake_up:
                with contextlib.suppress(BlockingIOError):
                    wake_up.recv(4096)
            else:
                self._listen(key.data)
        now = time.monotonic()
        if now - self._last_tick > _TICK_SECONDS + _PAUSE_SECONDS:
            self._discount_pause(now - self._last_tick)
        self._last_tick = now

    def _discount_pause(self, seconds: float) -> None:
        log.info("the server was paused for %.0f s", seconds)
        for slot in self._slots:
            slot.last_beat += seconds
            slot.started += seconds

    def _listen(self, slot: _Slot) -> None:
        octets = os.read(slot.status, 4096)
        if not octets:  # the worker has ended, or is ending
            self._forget_status(slot)
            return
        slot.last_beat = time.monotonic()
        slot.dumped_at = None
        beats, failed, reason = octets.partition(_FAILED)
        slot.is_ready = slot.is_ready or _READY in beats
        if failed:
            slot.reason = reason.decode("utf-8", "replace")

    def _forget_status(self, slot: _Slot) -> None:
        if slot.status >= 0:
            self._selector.unregister(slot.status)
            os.close(slot.status)
            slot.status = -1

    def _handle_stop(self, stopping: Callable[[], None]) -> None:
        if self._kill_at is not None or not (self._stop.is_made or self._failure is not None):
            return
        stopping()
        self._kill_at = time.monotonic() + _STOP_SECONDS
        for slot in self._slots:
            slot.start_at = None
            if slot.process:
                os.kill(slot.process, signal.SIGTERM)

    def _announce(self, ready: Callable[[], None]) -> None:
        is_served = self._kill_at is None and all(slot.is_ready for slot in self._slots)
        if is_served and not self._has_served:
            self._has_served = True
            ready()

    # --- ends -----------------------------------------------------------------------------

    def _reap(self) -> None:
        """Wait for every child that has ended; process 1 also adopts orphans."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            slot = next((slot for slot in self._slots if slot.process == process), None)
            if slot is not None:
                self._handle_end(slot, os.waitstatus_to_exitcode(status))

    def _handle_end(self, slot: _Slot, code: int) -> None:
        while slot.status >= 0:  # what it wrote before its end
            self._listen(slot)
        process, slot.process = slot.process, 0
        if self._kill_at is not None or self._stop.is_made:
            return
        reason = slot.reason or _describe(code)
        if not self._has_served:
            self._failure = self._failure or reason
            return
        wait = self._restart_delay(slot)
        slot.start_at = time.monotonic() + wait
        log.error("worker %d ended: %s; starting another in %g s", process, reason, wait)

    def _restart_delay(self, slot: _Slot) -> float:
        if time.monotonic() - slot.started >= _LONG_LIFE_SECONDS:
            slot.early_ends = 0
            return 0.0
        slot.early_ends += 1
        return min(2.0 ** (slot.early_ends - 1), _LONGEST_WAIT_SECONDS)

    def _kill_all(self) -> None:
        for slot in self._slots:
            if slot.process:
                os.kill(slot.process, signal.SIGKILL)
                os.waitpid(slot.process, 0)

    # --- time -----------------------------------------------------------------------------

    def _check_timeouts(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if slot.start_at is not None and now >= slot.start_at:
                self._start(slot)
            elif slot.process and not slot.is_killed:
                self._check_worker(slot, now)

    def _check_worker(self, slot: _Slot, now: float) -> None:
        if self._kill_at is not None:
            if now >= self._kill_at:
                self._kill(slot, f"it did not stop within {_STOP_SECONDS:g} s")
        elif not slot.is_ready:
            if now - slot.started > _START_SECONDS:
                slot.reason = f"it did not serve within {_START_SECONDS:g} s"
                self._kill(slot, slot.reason)
        elif self._beat_timeout and now - slot.last_beat > self._beat_timeout:
            self._end_hung(slot, now)

    def _end_hung(self, slot: _Slot, now: float) -> None:
        if slot.dumped_at is None:
            slot.dumped_at = now
            silence = now - slot.last_beat
            log.error("worker %d has hung for %.0f s; its stacks:", slot.process, silence)
            os.kill(slot.process, signal.SIGUSR1)
        elif now - slot.dumped_at > _DUMP_SECONDS:
            slot.reason = "it hung"
            self._kill(slot, slot.reason)

    def _kill(self, slot: _Slot, why: str) -> None:
        log.error("worker %d is killed: %s", slot.process, why)
        slot.is_killed = True
        os.kill(slot.process, signal.SIGKILL)

    # --- starting -------------------------------------------------------------------------

    def _start(self, slot: _Slot) -> None:
        status_reader, status_writer = os.pipe()
        # A signal between the fork and the child's first lines would run this process's handlers.
        with self._stop.blocked():
            supervisor = os.getpid()
            process = os.fork()
            if process == 0:
                self._become_worker(supervisor, status_writer)
        os.close(status_writer)
        now = time.monotonic()
        slot.process, slot.status = process, status_reader
        slot.started = slot.last_beat = now
        slot.is_ready = slot.is_killed = False
        slot.reason, slot.dumped_at, slot.start_at = "", None, None
        self._selector.register(status_reader, selectors.EVENT_READ, slot)

    def _become_worker(self, supervisor: int, status: int) -> NoReturn:
        """Run the worker in the child process; exit with its code."""
        code = 1
        lifeline = Lifeline(self._lifeline[0], status)
        try:
            stop = self._release_supervisor_resources()
            os.set_blocking(status, False)
            self._end_with_parent()
            if os.getppid() == supervisor:
                code = self._worker(lifeline, stop)
        except Exception as error:
            log.exception("a worker broke")
            lifeline.failed(f"{type(error).__name__}: {error}")
        finally:
            logging.shutdown()
            os._exit(code)

    def _release_supervisor_resources(self) -> StopRequest:
        """Close the supervisor's descriptors; return the worker's own stop request."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # A terminal sends these to all processes; the supervisor handles them.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.close(self._lifeline[1])
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        stop = StopRequest()
        stop.exit_at_once()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._stop.numbers)
        return stop


def _parent_death_signal() -> Callable[[], None]:
    """Return a function with which a worker requests SIGKILL at the supervisor's end (Linux).

    A worker that hangs would ignore any other signal, and keep the next server out.
    """
    if sys.platform != "linux":
        return lambda: None
    import ctypes  # noqa: PLC0415 - only with several workers: it costs memory

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) and None


def _describe(code: int) -> str:
    """Describe an exit code; a negative one is a signal's number."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
