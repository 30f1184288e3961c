"""Wake-ups: hints that a transaction has made work or changed what is cached.

Theory of operation. A unit of work that makes a row due calls `wake` with the subject, in its
transaction. When the transaction commits, one of two things happens for each subject:

- The worker of this process has capacity: it alone is woken, and no other process is disturbed.
- It has none, or there is none (a command): all other processes are woken by one message, whatever
  the number of units. On PostgreSQL it is a NOTIFY in the same transaction, on SQLite a datagram
  after the commit.

Waking all nodes for each mail would cost a query on each of them, and NOTIFY holds a lock of the
whole database until the commit has ended: 8 clients that insert a row made 211 commits a second
with it, 401 with another SELECT in its place. So mail that a node receives and processes itself
causes no message. A wake-up from another process is delayed by up to `_SPREAD_SECONDS`, at random:
the nodes do not all query at the same moment, and a burst of messages is one query.

Caches depend on the generation (`changes`), so a change of it is always sent.

A wake-up is never the truth: it may be lost, and all queues and the generation are read each second
anyway. So nothing here is retried, and after a lost connection nothing is repeated.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Protocol

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    bindparam,
    event,
    func,
    literal_column,
    select,
)

from sendback.store.engine.channels import Channel

log = logging.getLogger(__name__)

MESSAGE = "wake"
_SPREAD_SECONDS = 0.05
_NOTED = "sendback_wakeups"

# The channel of LISTEN has the name of the schema: several installations may share a database.
CHANNEL: ColumnElement[str] = literal_column("'sendback.' || current_schema()")
_NOTIFY = select(func.pg_notify(CHANNEL, bindparam("message")))


class Subject(StrEnum):
    """What there is to do."""

    CHANGES = "changes"
    DELIVERY = "delivery"
    PROCESSING = "processing"


def wake(connection: Connection, subject: Subject) -> None:
    """Note that this transaction makes work that is due now."""
    connection.info.setdefault(_NOTED, set()).add(subject)


class Worker(Protocol):
    """A worker of this process. `capacity` is read in the thread of the transactions."""

    @property
    def capacity(self) -> int: ...

    def wake(self) -> None: ...


class Wakeups:
    """The wake-ups of one process, in both directions."""

    def __init__(self, channel: Channel, changed: Callable[[], None]) -> None:
        """`changed` is called when another process has changed what is cached."""
        self._channel = channel
        self._changed = changed
        self._workers: dict[str, tuple[Worker, asyncio.AbstractEventLoop]] = {}
        self._pending: set[str] = set()
        channel.handle(MESSAGE, self._received)

    def serve(self, subject: Subject, worker: Worker) -> None:
        """Let a worker be woken in the running event loop, from now on."""
        self._workers[subject] = worker, asyncio.get_running_loop()

    def for_others(self, noted: Collection[Subject]) -> list[Subject]:
        """Return the subjects for which other processes have to be woken."""
        return sorted(subject for subject in noted if not self._has_capacity(subject))

    def wake_here(self, noted: Collection[Subject]) -> None:
        """Wake the workers of this process. May be called from any thread."""
        for subject in noted:
            if subject in self._workers:
                worker, loop = self._workers[subject]
                try:
                    loop.call_soon_threadsafe(worker.wake)
                except RuntimeError:  # the loop is closed
                    log.debug("there is no worker for %s any more", subject)

    def message(self, subjects: Collection[Subject]) -> str:
        """Return the message that wakes other processes."""
        return self._channel.message(MESSAGE, " ".join(subjects))

    def hint(self, subjects: Collection[Subject]) -> None:
        """Wake other processes. May be called from any thread."""
        self._channel.hint(MESSAGE, " ".join(subjects))

    def _has_capacity(self, subject: Subject) -> bool:
        return subject in self._workers and self._workers[subject][0].capacity > 0

    def _received(self, _sender: str, subjects: str) -> None:
        for subject in set(subjects.split()):
            if subject == Subject.CHANGES:
                self._changed()
            elif subject in self._workers and subject not in self._pending:
                self._pending.add(subject)
                delay = random.uniform(0, _SPREAD_SECONDS)  # noqa: S311 - no secret
                self._workers[subject][1].call_later(delay, self._wake, subject)

    def _wake(self, subject: str) -> None:
        self._pending.discard(subject)
        self._workers[subject][0].wake()


class WakeupRecorder:
    """Sends what the transactions of an engine have noted with `wake`.

    The engine must be used by one thread, with one connection at a time.
    """

    def __init__(self, engine: Engine, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        self._notifies = engine.dialect.name == "postgresql"
        self._noted: frozenset[Subject] = frozenset()
        event.listen(engine, "commit", self._committing)
        event.listen(engine, "rollback", _forget)

    def transaction_ended(self) -> None:
        """Wake what the last transaction noted; also after a commit whose result is unknown."""
        noted, self._noted = self._noted, frozenset()
        if not noted:
            return
        self._wakeups.wake_here(noted)
        if not self._notifies and (others := self._wakeups.for_others(noted)):
            self._wakeups.hint(others)

    def _committing(self, connection: Connection) -> None:
        noted = connection.info.pop(_NOTED, None)
        if not noted:
            return
        self._noted |= noted
        if self._notifies and (others := self._wakeups.for_others(noted)):
            connection.execute(_NOTIFY, {"message": self._wakeups.message(others)})


def _forget(connection: Connection) -> None:
    if not connection.invalidated:  # the notes ended with the lost connection
        connection.info.pop(_NOTED, None)
