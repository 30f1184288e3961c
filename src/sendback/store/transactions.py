"""Units of work, and the threads that run them together: group commit.

Theory of operation. A unit is a callable that is given a connection inside a transaction and
answers with a value. Units that wait at the same moment share one transaction and one fsync. When
the last group has only just ended, more units are on their way: the next group waits for them for
less than a millisecond, which a commit costs anyway (measured: a fifth more mails a second with
ten clients). A store at rest waits for nobody. Units of the same `BatchUnit` type in a group are
run together, so that one statement can serve them all.

When a unit raises, the group's transaction is rolled back and each of its units is run again in
a transaction of its own: a unit must therefore do nothing but use the connection. When the
database itself fails, all units of the group fail with `StoreUnavailableError`.
"""

import asyncio
import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from sendback.store.errors import StoreUnavailableError

log = logging.getLogger(__name__)

# A unit may name some 130 identities (a domain of 127 labels), and SQLite allows 32,766
# parameters in a statement.
MAX_GROUP = 128
_GATHER_SECONDS = 0.0007
_BUSY_SECONDS = 0.005

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Unit(Protocol[T_co]):
    """Work to be done in a transaction. May be run more than once; only one run takes effect."""

    def __call__(self, connection: Connection, /) -> T_co: ...


class BatchUnit(Generic[T]):
    """A unit that knows how to be done together with others of its type."""

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[T]:
        """One result for each unit, in order."""
        raise NotImplementedError

    def __call__(self, connection: Connection, /) -> T:
        return self.run_together(connection, [self])[0]


@dataclass(slots=True)
class _Job:
    unit: Unit[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class TransactionThread:
    """One thread with one connection, running what is submitted in groups."""

    _STOP: ClassVar[None] = None

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._last_group = 0.0
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, unit: Unit[T]) -> T:
        """Runs the unit and answers once it is committed. Raises `StoreUnavailableError`."""
        loop = asyncio.get_running_loop()
        job = _Job(unit, loop, loop.create_future())
        self._queue.put(job)
        return cast("T", await job.future)

    def close(self) -> None:
        """Runs what was submitted, then ends the thread."""
        self._queue.put(self._STOP)
        self._thread.join()
        self._engine.dispose()

    def _work(self) -> None:
        while True:
            jobs, stopping = self._next_group()
            if jobs:
                self._run_group(jobs)
                self._last_group = monotonic()
                _settle(jobs)
            if stopping:
                self._disconnect()
                return

    def _next_group(self) -> tuple[list[_Job], bool]:
        job = self._queue.get()
        if monotonic() - self._last_group < _BUSY_SECONDS:
            sleep(_GATHER_SECONDS)
        jobs: list[_Job] = []
        while job is not None:
            jobs.append(job)
            if len(jobs) == MAX_GROUP:
                return jobs, False
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _run_group(self, jobs: list[_Job]) -> None:
        try:
            self._transact(jobs)
        except Exception as error:  # noqa: BLE001 - whatever a unit raises is its caller's
            if _is_unavailable(error):
                log.warning("the store is unavailable: %s", error)
                for job in jobs:
                    job.error = StoreUnavailableError(str(error))
                self._disconnect()
            elif len(jobs) == 1:
                jobs[0].error = error
            else:
                for job in jobs:
                    self._run_group([job])

    def _transact(self, jobs: list[_Job]) -> None:
        connection = self._connect()
        with connection.begin():
            for batch in _by_type(jobs):
                batch(connection)

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()


def _by_type(jobs: Sequence[_Job]) -> list[Callable[[Connection], None]]:
    batches: dict[type[BatchUnit[Any]], list[_Job]] = defaultdict(list)
    work: list[Callable[[Connection], None]] = []
    for job in jobs:
        if isinstance(job.unit, BatchUnit):
            batches[type(job.unit)].append(job)
        else:
            work.append(_single(job))
    return [_batch(kind, members) for kind, members in batches.items()] + work


def _single(job: _Job) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        job.result = job.unit(connection)

    return run


def _batch(kind: type[BatchUnit[Any]], jobs: list[_Job]) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        units = [cast("BatchUnit[Any]", job.unit) for job in jobs]
        for job, result in zip(jobs, kind.run_together(connection, units), strict=True):
            job.result = result

    return run


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and not isinstance(error, IntegrityError)


def _settle(jobs: Sequence[_Job]) -> None:
    """One wake-up of each event loop for the whole group."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
    for job in jobs:
        loops[job.loop].append(job)
    for loop, members in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, members)
        except RuntimeError:  # the loop was closed: nobody waits any more
            log.debug("%d results came after their event loop had closed", len(members))


def _resolve(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
