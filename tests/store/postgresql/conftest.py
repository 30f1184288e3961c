"""Two nodes on one PostgreSQL: their transactions overlap as a test says."""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, text

from sendback.store.access.accounts import AddAccount
from sendback.store.engine.changes import ChangeRecorder
from sendback.store.engine.dialects import open_engine
from sendback.store.engine.locking import group
from sendback.store.engine.store import transact
from tests.conftest import NOW, need
from tests.partners.postgresql import binaries, shared_server
from tests.partners.queue import ACCOUNT

OTHER = "111122223333"
Unit = Callable[[Connection], Any]


class Node:
    """A node's writer: a connection in a thread of its own. The test ends its transactions."""

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url, writes=True)
        ChangeRecorder(self._engine)
        self._thread = ThreadPoolExecutor(1)
        self._connection = self._thread.submit(self._engine.connect).result()
        query = text("SELECT pg_backend_pid()")
        self.pid = self._thread.submit(self._connection.execute, query).result().scalar_one()
        self.rollback()

    def begin(self, *units: Unit) -> "Future[Any]":
        """Run units together in the transaction, which stays open; the last one's result."""

        def run() -> Any:
            result = None
            with group(self._connection):
                for unit in units:
                    result = unit(self._connection)
            return result

        return self._thread.submit(run)

    def run(self, *units: Unit) -> Any:
        """Run the units, and commit."""
        found = self.begin(*units).result(20)
        self.commit()
        return found

    def commit(self) -> None:
        self._thread.submit(self._connection.commit).result(20)

    def rollback(self) -> None:
        self._thread.submit(self._connection.rollback).result(20)

    def close(self) -> None:
        self._thread.submit(self._connection.close).result(20)
        self._thread.shutdown()
        self._engine.dispose()


class Race:
    """Two nodes, and the order of their transactions."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.nodes = Node(url), Node(url)
        self._watching = psycopg.connect(url, autocommit=True)

    def __call__(self, first: Unit, second: Unit) -> tuple[Any, Any]:
        """Begin `second` while the transaction of `first` is open; then commit both.

        Returns what each returned or raised. `second` may wait for the first one's commit.
        """
        one, two = self.nodes
        found = _outcome(one.begin(first))
        waiting = two.begin(second)
        self._wait_for(waiting, two.pid)
        _end(one, found)
        other = _outcome(waiting)
        _end(two, other)
        return found, other

    def waits(self, first: Unit, second: Unit) -> bool:
        """Whether `second` waits for the transaction of `first`. Both are committed."""
        one, two = self.nodes
        _outcome(one.begin(first))
        waiting = two.begin(second)
        is_blocked = self._wait_for(waiting, two.pid)
        one.commit()
        waiting.result(20)
        two.commit()
        return is_blocked

    def tangle(self, row: str, first: Unit, second: Unit) -> tuple[Any, Any]:
        """Begin both while `row`, a SELECT FOR UPDATE, is locked elsewhere; return as above.

        Both are in the middle of taking their locks when that lock is released: they deadlock if
        the order of their locks differs.
        """
        one, two = self.nodes
        other = Node(self.url)
        other.begin(lambda connection: connection.exec_driver_sql(row).all()).result(20)
        waiting = []
        for node, unit in ((one, first), (two, second)):
            waiting.append(node.begin(unit))
            self._wait_for(waiting[-1], node.pid)
        other.rollback()
        other.close()
        found = []
        # One of them may wait for the other's commit.
        for node, future in sorted(
            zip(self.nodes, waiting, strict=True), key=lambda pair: not self._is_done(pair[1])
        ):
            found.append((node is two, _outcome(future)))
            _end(node, found[-1][1])
        (_, result), (_, other_result) = sorted(found, key=lambda pair: pair[0])
        return result, other_result

    def _is_done(self, future: "Future[Any]") -> bool:
        with contextlib.suppress(TimeoutError):
            future.exception(2)
        return future.done()

    def run(self, unit: Unit) -> Any:
        return self.nodes[0].run(unit)

    def query(self, statement: str) -> list[Any]:
        return list(transact(self.url, lambda c: c.execute(text(statement)).all(), writes=False))

    def _wait_for(self, future: "Future[Any]", pid: int) -> bool:
        """Wait until the work has ended or waits for a lock; whether it waits."""
        state = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
        deadline = time.monotonic() + 20
        while not future.done() and time.monotonic() < deadline:
            row = self._watching.execute(state, (pid,)).fetchone()
            if row == ("Lock",) and not future.done():
                return True
            time.sleep(0.002)
        return False

    def close(self) -> None:
        self._watching.close()
        for node in self.nodes:
            node.close()


def _outcome(future: "Future[Any]") -> Any:
    try:
        return future.result(20)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error


def _end(node: Node, found: Any) -> None:
    if isinstance(found, Exception):
        node.rollback()
    else:
        node.commit()


@pytest.fixture
def url() -> str:
    """A new database with two accounts."""
    need("PostgreSQL", available=binaries() is not None)
    found = shared_server().create()
    for account in (ACCOUNT, OTHER):
        transact(found, AddAccount(account, NOW), writes=True)
    return found


@pytest.fixture
def race(url: str) -> Iterator[Race]:
    found = Race(url)
    yield found
    found.close()
