"""Units of work, and the threads that run them together: group commit.

Theory of operation. A unit is a callable that takes a connection inside a transaction and returns
a value. Units that wait at the same moment form a group: they share one transaction and one fsync.
If the last group had several units and ended less than 5 ms ago, the next one waits 0.7 ms for
more, about what a commit costs (measured: a fifth more mails a second with ten clients). An idle
store, and one with a single client, does not wait (a single client: a third more mails a second).
Units of the same `BatchUnit` type in a group run together: one statement can serve all of them.

When a unit raises, the group's transaction is rolled back and each of its units is run again in
a transaction of its own: a unit must therefore do nothing but use the connection. The exception is
raised to the unit's caller. What an error of the database means, `dialects.failure_of` decides:

- A conflict with another transaction: a unit alone is run again, up to five times.
- The connection was lost: the group is run once more, on a new connection. Not if it was lost
  during COMMIT, because then the transaction may have been committed (`CommitUnknownError`).
- The database is unavailable: all units of the group fail with `StoreUnavailableError`. After a
  connection that failed, units fail at once until the next attempt is due, a second at most.
- None of these: the unit's own error.

A database on a server may also be silent. `_Watch` ends a transaction that hangs, and so does
`close`, by ending its connection.

The thread ends only by `close`: whatever is raised in it, every caller gets a result.
"""

import asyncio
import logging
import queue
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from time import monotonic, sleep
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

from sqlalchemy import Connection, Engine, event

from sendback.log_limits import LogLimiter
from sendback.store.engine.dialects import (
    failure_of,
    hang_seconds,
    interrupt,
    reconnect_seconds,
)
from sendback.store.engine.errors import (
    CommitUnknownError,
    Failure,
    FailureKind,
    RefusedError,
    StoreUnavailableError,
)
from sendback.store.engine.locking import Place, group, place_of, transactions_of

log = logging.getLogger(__name__)

# A unit may have 130 identities as parameters (a domain of 127 labels), and SQLite allows 32,766
# parameters in a statement.
MAX_GROUP = 128
_GATHER_SECONDS = 0.0007
_BUSY_SECONDS = 0.005
# A unit alone that meets a conflict is run again so often, while no more time has gone by.
_MOST_RUNS = 6
_CONFLICT_SECONDS = 5.0
_CONFLICT_PAUSE_SECONDS = 0.02  # twice as long each time, with jitter
_CLOSE_SECONDS = 10.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Unit(Protocol[T_co]):
    """Work in a transaction. It may run more than once, but only one run is committed."""

    def __call__(self, connection: Connection, /) -> T_co: ...


class BatchUnit(Generic[T]):
    """A unit that runs together with others of its type: one statement serves all of them."""

    @classmethod
    def run_together(
        cls, connection: Connection, units: Sequence[Self]
    ) -> Sequence[T | RefusedError]:
        """Return one result for each unit, in order.

        A `RefusedError` is raised to the caller of that unit; raising it here would roll back the
        whole group.
        """
        raise NotImplementedError

    def __call__(self, connection: Connection, /) -> T:
        result = self.run_together(connection, [self])[0]
        if isinstance(result, RefusedError):
            raise result
        return result


@dataclass(slots=True)
class _Job:
    unit: Unit[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class TransactionThread:
    """One thread with one connection, running what is submitted in groups."""

    _STOP: ClassVar[None] = None

    def __init__(
        self,
        engine: Engine,
        name: str,
        ended: Callable[[], None] = lambda: None,
        *,
        writes: bool = True,
        locks_rows: bool = False,
    ) -> None:
        """`ended` is called after each transaction, whatever its result, before the callers.

        `writes`: whether what COMMIT did is of importance, when its result is unknown. With
        `locks_rows`, groups take their locks in order: see `locking`.
        """
        self._engine = engine
        self._locks_rows = locks_rows
        self._ended = ended
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._connection: Connection | None = None
        self._driver: Any = None  # its connection of the driver, for `interrupt`
        self._busy_since: float | None = None
        self._is_committing = False
        self._limiter = LogLimiter()
        if writes:
            event.listen(engine, "commit", self._commit_begins)
        self._reconnecting = _Backoff(*reconnect_seconds(engine))
        self._last_group = 0.0
        self._last_size = 0
        self._submitting = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        self._watch = _Watch(self, hang_seconds(engine), name)

    async def run(self, unit: Unit[T]) -> T:
        """Run the unit and return its result once it is committed.

        Raises `StoreUnavailableError`, and what the unit raises. Cancelling the caller does not
        stop the unit: it may record something that has already happened.
        """
        loop = asyncio.get_running_loop()
        job = _Job(unit, loop, loop.create_future())
        with self._submitting:
            if self._is_closed:
                raise StoreUnavailableError("the store is closed")
            self._queue.put(job)
        return cast("T", await job.future)

    def close(self) -> None:
        """Run what was submitted, then end the thread. May be called again, from any thread.

        A database that does not reply is waited for only some seconds.
        """
        with self._submitting:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(self._STOP)
        self._thread.join(_CLOSE_SECONDS)
        while self._thread.is_alive():
            self.interrupt(0)
            self._thread.join(1)
        self._watch.stop()
        self._engine.dispose()

    def interrupt(self, seconds: float) -> None:
        """End the connection of a transaction that began longer ago than this."""
        since, driver = self._busy_since, self._driver
        if since is not None and driver is not None and monotonic() - since > seconds:
            interrupt(self._engine, driver)

    def _work(self) -> None:
        stopping = False
        while not stopping:
            jobs: list[_Job] = []
            try:
                stopping = self._next_group(jobs)
                for together in self._transactions(jobs):
                    self._run_group(together)
                self._last_group, self._last_size = monotonic(), len(jobs)
            except BaseException as error:
                log.critical("internal error in the store's thread, which continues", exc_info=True)
                _fail(jobs, error)
            _settle(jobs)
        self._disconnect()

    def _next_group(self, jobs: list[_Job]) -> bool:
        """Wait for jobs and append them to `jobs`; return whether the thread is to end."""
        job = self._queue.get()
        if self._last_size > 1 and monotonic() - self._last_group < _BUSY_SECONDS:
            sleep(_GATHER_SECONDS)
        while job is not None:
            jobs.append(job)
            if len(jobs) == MAX_GROUP:
                return False
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return False
        return True

    def _transactions(self, jobs: list[_Job]) -> list[list[_Job]]:
        """Return the jobs of each transaction: all of them in one, unless rows are locked."""
        if self._locks_rows:
            return transactions_of((job.unit, job) for job in jobs)
        return [jobs]

    def _run_group(self, jobs: list[_Job]) -> None:
        started, runs = monotonic(), 0
        while jobs:
            runs += 1
            error = self._attempt(jobs)
            if error is None:
                return
            failure = failure_of(error, self._engine)
            step = _next_step(failure, runs, monotonic() - started, alone=len(jobs) == 1)
            if failure is not None and failure.kind is not FailureKind.CONFLICT:
                self._disconnect()
                if self._is_committing:
                    step = _Step.LEAVE
            self._mend_connection()
            if step is not _Step.REPEAT:
                self._end(step, jobs, error, failure.reason if failure else None)
                return
            if failure is not None and failure.kind is FailureKind.CONFLICT:
                sleep(_CONFLICT_PAUSE_SECONDS * 2**runs * random.random())  # noqa: S311 - jitter

    def _end(
        self, step: "_Step", jobs: list[_Job], error: BaseException, reason: str | None
    ) -> None:
        if step is _Step.PART:
            for job in jobs:
                self._run_group([job])
        elif step is _Step.FAIL:
            _fail(jobs, error)
        else:
            is_unknown = step is _Step.LEAVE
            # While the database is away every group fails: one line a second says so.
            more = self._limiter.check("unknown" if is_unknown else "unavailable", monotonic())
            if more is not None:
                when = ", in COMMIT" * is_unknown
                log.warning("the store is unavailable%s: %s%s", when, reason, more)
            for job in jobs:
                job.error = (CommitUnknownError if is_unknown else StoreUnavailableError)(reason)

    def _attempt(self, jobs: list[_Job]) -> BaseException | None:
        """Run the jobs in a transaction; return what was raised."""
        self._is_committing = False
        try:
            self._transact(jobs)
        except BaseException as error:  # noqa: BLE001 - raised to the unit's caller
            return error
        finally:
            self._busy_since = None
        return None

    def _transact(self, jobs: list[_Job]) -> None:
        self._busy_since = monotonic()
        connection = self._connect()
        try:
            with connection.begin(), group(connection):
                for batch in _by_type(jobs):
                    batch(connection)
        finally:
            self._ended()

    def _commit_begins(self, _: Connection) -> None:
        self._is_committing = True

    def _connect(self) -> Connection:
        if self._connection is None:
            self._reconnecting.check()
            try:
                self._connection = self._engine.connect()
            except BaseException as error:
                failure = failure_of(error, self._engine)
                if failure is not None:
                    self._reconnecting.failed(failure)
                raise
            self._reconnecting.succeeded()
            self._driver = self._connection.connection.dbapi_connection
        return self._connection

    def _mend_connection(self) -> None:
        """Disconnect if a transaction is still open: the next unit must not run inside it."""
        connection = self._connection
        if connection is not None and (connection.in_transaction() or connection.invalidated):
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._driver = None
        if connection is not None:
            connection.invalidate()
            connection.close()


class _Backoff:
    """When to connect again after a connection that failed."""

    def __init__(self, first: float, most: float) -> None:
        self._first = first
        self._most = most
        self._seconds = first
        self._next = float("-inf")
        self._reason: str | None = None

    def check(self) -> None:
        """Raise `StoreUnavailableError` if it is too early."""
        if monotonic() < self._next:
            raise StoreUnavailableError(self._reason)

    def failed(self, failure: Failure) -> None:
        self._reason = failure.reason
        self._next = monotonic() + self._seconds
        self._seconds = min(2 * self._seconds, self._most)

    def succeeded(self) -> None:
        self._seconds = self._first


class _Watch:
    """A thread that interrupts transactions that hang; none for a database that cannot hang."""

    def __init__(self, watched: TransactionThread, seconds: float | None, name: str) -> None:
        self._watched = watched
        self._stopped = threading.Event()
        if seconds is not None:
            threading.Thread(
                target=self._run, args=(seconds,), name=f"{name}-watch", daemon=True
            ).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self, seconds: float) -> None:
        while not self._stopped.wait(seconds / 9):
            self._watched.interrupt(seconds)


class _Step(Enum):
    """What follows on a transaction that has failed."""

    REPEAT = auto()
    PART = auto()  # run each unit in a transaction of its own
    FAIL = auto()  # raise the error to the caller
    REFUSE = auto()  # raise `StoreUnavailableError`
    LEAVE = auto()  # raise `CommitUnknownError`


def _next_step(failure: Failure | None, runs: int, seconds: float, *, alone: bool) -> _Step:
    """Return what to do after so many runs, since the first of which so much time has passed."""
    kind = None if failure is None else failure.kind
    if kind is FailureKind.LOST and runs == 1:
        return _Step.REPEAT
    if kind in {FailureKind.LOST, FailureKind.UNAVAILABLE}:
        return _Step.REFUSE
    if not alone:
        return _Step.PART
    if kind is FailureKind.CONFLICT and runs < _MOST_RUNS and seconds < _CONFLICT_SECONDS:
        return _Step.REPEAT
    return _Step.REFUSE if failure is not None and failure.reason is not None else _Step.FAIL


def _by_type(jobs: Sequence[_Job]) -> list[Callable[[Connection], None]]:
    """Return what runs the jobs, in the order of their places (`locking`)."""
    batches: dict[type[BatchUnit[Any]], list[_Job]] = {}
    work: list[Callable[[Connection], None]] = []
    for job in sorted(jobs, key=_place):
        if not isinstance(job.unit, BatchUnit):
            work.append(_single(job))
        elif (members := batches.get(type(job.unit))) is not None:
            members.append(job)
        else:
            batches[type(job.unit)] = members = [job]
            work.append(_batch(type(job.unit), members))
    return work


def _place(job: _Job) -> tuple[int, bool]:
    """Return what jobs are sorted by: their places, and those of shared statements first."""
    return place_of(job.unit) or len(Place) + 1, not isinstance(job.unit, BatchUnit)


def _single(job: _Job) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        job.result, job.error = job.unit(connection), None

    return run


def _batch(kind: type[BatchUnit[Any]], jobs: list[_Job]) -> Callable[[Connection], None]:
    def run(connection: Connection) -> None:
        units = [cast("BatchUnit[Any]", job.unit) for job in jobs]
        for job, result in zip(jobs, kind.run_together(connection, units), strict=True):
            job.result, job.error = result, result if isinstance(result, RefusedError) else None

    return run


def _fail(jobs: Sequence[_Job], error: BaseException) -> None:
    """Set the error of each job that has none.

    An error that is no `Exception`, or is a `StopIteration` (PEP 479), must not reach the event
    loop, so it becomes a `RuntimeError`.
    """
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        error = RuntimeError(f"a unit of work raised {error!r}")
    for job in jobs:
        job.error = job.error or error


def _settle(jobs: Sequence[_Job]) -> None:
    """Deliver the results of the group, waking each event loop once."""
    loops: dict[asyncio.AbstractEventLoop, list[_Job]] = defaultdict(list)
    for job in jobs:
        loops[job.loop].append(job)
    for loop, members in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, members)
        except RuntimeError:  # the loop is closed, so there are no callers left
            log.debug("%d results came after their event loop had closed", len(members))


def _resolve(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.future.done():
            continue
        if job.error is not None:
            job.future.set_exception(job.error)
        else:
            job.future.set_result(job.result)
