"""The processes that authenticate mail, and what a server does when one has to be killed.

Theory of operation. A process authenticates several mails at once, since most of the time is spent
waiting for DNS: with one mail each, a few mails whose DNS servers do not respond would delay the
verdicts of all others. When a mail is not finished in time, or a process dies, the process is
killed; which of its mails was the cause is unknown. So each of them is retried alone in a process,
with the results that are known already. A method that ends that process too is aborted: its result
is a temporary error, and the other methods continue in the next process.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from sendback.errors import SendbackError
from sendback.mail.printable import printable
from sendback.receipt.verdicts import Verdicts
from sendback.service.rules.content import MailToCheck
from sendback.verdicts.frames import (
    MAILS_AT_ONCE,
    MAX_LINE_OCTETS,
    Request,
    read_result,
    write_request,
)
from sendback.verdicts.methods import METHODS, Method, Result, as_verdicts, failed

log = logging.getLogger(__name__)

# -P: nothing is imported from the working directory.
COMMAND = (sys.executable, "-P", "-m", "sendback.verdicts.child")

_CPU_SECONDS = 5.0  # for one mail, in addition to the time for its lookups
_OCTETS_A_SECOND = 4 * 2**20  # of a large body: a tenth of what a busy machine manages
_START_SECONDS = 20.0
_END_SECONDS = 1.0  # to end by itself, after a failed start
_WAIT_SECONDS = 30.0  # for a process that has capacity
_IDLE_SECONDS = 60.0  # after which a process is ended
_BROKEN_SECONDS = 5.0  # without a new start after one that failed
# Another process is started when each of the others has so many mails.
_BUSY = 4
_LARGE_OCTETS = 2**20
# The part of the environment that a process gets: nothing in it is secret.
_INHERITED = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
_MAX_NOTE = 300


class _LostError(SendbackError):
    """The process that worked on a mail has ended before the mail was finished."""


class _StartError(SendbackError):
    """A process could not be started."""


@dataclass(frozen=True, slots=True)
class _Progress:
    """A mail and its results so far."""

    mail: MailToCheck
    results: dict[Method, Result] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.results) == len(METHODS)


class VerdictProcesses:
    """Authenticates mail in processes that are started on demand."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]] | None,
        *,
        processes: int,
        seconds: float,
        cpu_seconds: float = _CPU_SECONDS,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`servers` are DNS servers (address, port), None the system's.

        There are at most `processes`, and one more while mails are tried again. One mail may take
        `seconds` for its look-ups and `cpu_seconds` for everything else. `command` runs a process;
        it is given the options as another argument.
        """
        self._servers = servers
        self._command = command
        self._processes = processes
        self._seconds = seconds
        self._cpu_seconds = cpu_seconds
        self._running: list[_Process] = []
        self._capacity = asyncio.Semaphore(processes * MAILS_AT_ONCE)
        self._large = asyncio.Semaphore(processes)
        self._alone = asyncio.Semaphore(1)
        self._starting = asyncio.Lock()
        self._broken_until = 0.0

    async def authenticate(self, mail: MailToCheck) -> Verdicts:
        """Return the verdicts of SPF, DKIM and DMARC.

        A method that does not complete in time has a temporary error.
        """
        progress = _Progress(mail)
        try:
            await self._work(progress)
        except (TimeoutError, _StartError) as error:
            log.warning("%s is not authenticated: %s", mail.name, error)
        return as_verdicts(progress.results, mail)

    async def close(self) -> None:
        """End all processes, also those with mails."""
        running, self._running = self._running, []
        for process in running:
            process.kill("the server stops")
        await asyncio.gather(*(process.wait() for process in running))

    async def _work(self, progress: _Progress) -> None:
        """Raises `TimeoutError`, `_StartError`."""
        try:
            await self._among_others(progress)
        except _LostError:
            while not progress.is_complete:
                await self._by_itself(progress)

    async def _among_others(self, progress: _Progress) -> None:
        """Raises `TimeoutError`, `_StartError`, `_LostError`."""
        async with contextlib.AsyncExitStack() as places:
            if progress.mail.content.body_size > _LARGE_OCTETS:
                await places.enter_async_context(_place_of(self._large))
            await places.enter_async_context(_place_of(self._capacity))
            await self._run(await self._process_with_capacity(), progress)

    async def _by_itself(self, progress: _Progress) -> None:
        """Continue in a process without other mails; abort the method that ends it.

        Raises `TimeoutError`, `_StartError`.
        """
        async with _place_of(self._alone):
            process = await self._start()
            try:
                await self._run(process, progress)
            except _LostError as error:
                method = next(name for name in METHODS if name not in progress.results)
                progress.results[method] = failed(method, progress.mail)
                log.warning("%s of %s is given up: %s", method, progress.mail.name, error)
            finally:
                process.kill("it was for one mail")
                await process.wait()

    async def _run(self, process: "_Process", progress: _Progress) -> None:
        """Raises `_LostError`."""
        mail = progress.mail
        seconds = self._seconds + self._cpu_seconds + mail.content.body_size / _OCTETS_A_SECOND
        try:
            async with asyncio.timeout(seconds):
                await process.work(progress, self._seconds)
        except TimeoutError:
            reason = f"{mail.name} was not finished within {seconds:.0f} s"
            process.kill(reason, logging.WARNING)
            raise _LostError(reason) from None

    async def _process_with_capacity(self) -> "_Process":
        """Raises `_StartError`."""
        process = self._least_busy()
        if process is None or (self._wants_another(process) and not self._starting.locked()):
            async with self._starting:
                process = self._least_busy()  # one may have been started meanwhile
                if process is None or self._wants_another(process):
                    process = await self._start()
                    self._running.append(process)
        return process

    def _least_busy(self) -> "_Process | None":
        process = min(self._running, key=lambda process: process.load, default=None)
        return process if process is not None and process.load < MAILS_AT_ONCE else None

    def _wants_another(self, process: "_Process") -> bool:
        return process.load >= _BUSY and len(self._running) < self._processes

    async def _start(self) -> "_Process":
        """Raises `_StartError`."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._broken_until:
            raise _StartError("a process could not be started a moment ago")
        try:
            return await _Process.start(self._command, self._servers, self._forget)
        except _StartError as error:
            self._broken_until = loop.time() + _BROKEN_SECONDS
            log.warning("mail cannot be authenticated: %s", error)
            raise

    def _forget(self, process: "_Process") -> None:
        if process in self._running:
            self._running.remove(process)


class _Process:
    """One process and its mails."""

    def __init__(
        self, process: asyncio.subprocess.Process, forget: "Callable[[_Process], None]"
    ) -> None:
        """`forget` is called once, when the process can take no more mails."""
        self._process = process
        self._forget = forget
        self._numbers = itertools.count()
        self._pending: dict[int, tuple[_Progress, asyncio.Future[None]]] = {}
        self._lost = ""
        self._idle = self._kill_when_idle()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        servers: Sequence[tuple[str, int]] | None,
        forget: "Callable[[_Process], None]",
    ) -> "_Process":
        """Return when it is ready. Raises `_StartError`."""
        options = json.dumps({"parent": os.getpid(), "servers": servers})
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                options,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # Each thread of glibc's allocator would take 64 MB of the address space.
                env={**environment, "MALLOC_ARENA_MAX": "2"},
                limit=MAX_LINE_OCTETS,
            )
        except OSError as error:
            raise _StartError(f"a process could not be started: {error}") from error
        try:
            async with asyncio.timeout(_START_SECONDS):
                is_ready = await _stdout(process).readline() == b"\n"
        except (TimeoutError, ValueError):
            is_ready = False
        except BaseException:
            _kill(process)
            raise
        if not is_ready:
            status = await _end(process)
            raise _StartError(f"a process ended with status {status} before it was ready")
        return cls(process, forget)

    @property
    def load(self) -> int:
        """The number of its mails."""
        return len(self._pending)

    async def work(self, progress: _Progress, seconds: float) -> None:
        """Return when the results are complete. Raises `_LostError`."""
        if self._lost:
            raise _LostError(self._lost)
        self._idle.cancel()
        number, done = next(self._numbers), asyncio.get_running_loop().create_future()
        self._pending[number] = (progress, done)
        request = Request(number, progress.mail, seconds, dict(progress.results))
        stdin = _stdin(self._process)
        try:
            # If the pipe is closed, `done` will have the reason. uvloop raises RuntimeError.
            with contextlib.suppress(ConnectionError, RuntimeError):
                stdin.write(write_request(request))
                await stdin.drain()
            await done
        finally:
            del self._pending[number]
            if not self._pending and not self._lost:
                self._idle = self._kill_when_idle()

    def kill(self, reason: str, level: int = logging.INFO) -> None:
        """End it at once."""
        if not self._lost:
            log.log(level, "verdict process %d is ended: %s", self._process.pid, reason)
        self._lose(reason)

    async def wait(self) -> None:
        """Return when it has ended and is reaped."""
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._process.wait()

    def _kill_when_idle(self) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        return loop.call_later(_IDLE_SECONDS, self.kill, "it was idle")

    async def _read(self) -> None:
        reason = "it ended"
        try:
            while line := await _stdout(self._process).readline():
                self._take(line)
        except ValueError as error:
            reason = f"it sent {error}"
        if not self._lost:
            log.error("verdict process %d is lost: %s", self._process.pid, printable(reason))
        self._lose(reason)
        await self._process.wait()

    def _take(self, line: bytes) -> None:
        """Raises `ValueError`."""
        answer = read_result(line)
        if answer.number not in self._pending:
            return  # nobody waits for it any more
        progress, done = self._pending[answer.number]
        progress.results.setdefault(answer.method, answer.result)
        for note in answer.notes:
            log.info("%s: %s", progress.mail.name, printable(note, _MAX_NOTE))
        if progress.is_complete and not done.done():
            done.set_result(None)

    def _lose(self, reason: str) -> None:
        if self._lost:
            return
        self._lost = reason
        self._idle.cancel()
        _kill(self._process)
        for _, done in self._pending.values():
            if not done.done():
                done.set_exception(_LostError(reason))
        self._forget(self)


@contextlib.asynccontextmanager
async def _place_of(semaphore: asyncio.Semaphore) -> AsyncIterator[None]:
    """Raises `TimeoutError` when none becomes free in time."""
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await semaphore.acquire()
    except TimeoutError:
        raise TimeoutError(f"no process had capacity within {_WAIT_SECONDS:.0f} s") from None
    try:
        yield
    finally:
        semaphore.release()


async def _end(process: asyncio.subprocess.Process) -> int:
    """Wait a moment for the process to end, then kill it; return its status.

    Killing one that has ended, but is not reaped, would lose its status: `Popen` reaps it first.
    """
    try:
        async with asyncio.timeout(_END_SECONDS):
            return await process.wait()
    except TimeoutError:
        _kill(process)
        return await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()


def _stdin(process: asyncio.subprocess.Process) -> asyncio.StreamWriter:
    if process.stdin is None:
        raise RuntimeError("the process has no input")
    return process.stdin


def _stdout(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    if process.stdout is None:
        raise RuntimeError("the process has no output")
    return process.stdout
