"""Group commit: units that wait together share a transaction, but not their errors."""

import asyncio
import sqlite3
import threading
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import IntegrityError

from sendback.store.engine.dialects import open_engine
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.transactions import BatchUnit, TransactionThread

pytestmark = pytest.mark.sqlite("tests/store/test_postgresql.py has its own of these")


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "x.db"
    sqlite3.connect(file).execute("CREATE TABLE t (id INTEGER PRIMARY KEY)").connection.close()
    return file


@pytest.fixture
def thread(path):
    instance = TransactionThread(open_engine(f"sqlite:///{path}", writes=True), "test")
    yield instance
    instance.close()


@dataclass(frozen=True)
class Add(BatchUnit[int]):
    number: int

    @classmethod
    def run_together(cls, connection: Connection, units):
        groups.append(len(units))
        connection.execute(
            text("INSERT INTO t VALUES (:number)"), [{"number": unit.number} for unit in units]
        )
        return [unit.number for unit in units]


groups: list[int] = []


def rows(path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT id FROM t ORDER BY id")]
    finally:
        connection.close()


def test_units_that_wait_together_share_a_transaction(thread, path):
    groups.clear()

    async def main():
        return await asyncio.gather(*(thread.run(Add(number)) for number in range(100)))

    assert asyncio.run(main()) == list(range(100))
    assert rows(path) == list(range(100))
    assert len(groups) < 50


def test_a_failing_unit_fails_no_other(thread, path):
    async def main():
        await thread.run(Add(7))
        units = [thread.run(Add(number)) for number in range(10)]
        return await asyncio.gather(*units, return_exceptions=True)

    results = asyncio.run(main())
    assert isinstance(results.pop(7), IntegrityError)
    assert results == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert rows(path) == list(range(10))


def test_the_writes_of_a_failed_unit_are_rolled_back(thread, path):
    def half(connection):
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        asyncio.run(thread.run(half))
    assert rows(path) == []


def test_a_full_disk_is_unavailable_and_recovers_by_itself(thread, path):
    """A real SQLITE_FULL: the database may not grow by a page."""

    def pages(limit):
        def unit(connection):
            return connection.exec_driver_sql(f"PRAGMA max_page_count = {limit}").scalar()

        return unit

    def fill(connection):
        connection.execute(text("CREATE TABLE big (b BLOB)"))
        connection.execute(text("INSERT INTO big VALUES (zeroblob(1000000))"))

    async def main():
        await thread.run(pages(10))
        with pytest.raises(StoreUnavailableError, match="full"):
            await thread.run(fill)
        # The failed connection was closed, and its limit of pages with it.
        await thread.run(fill)

    asyncio.run(main())


def test_closing_finishes_what_was_submitted(path):
    thread = TransactionThread(open_engine(f"sqlite:///{path}", writes=True), "test")

    async def main():
        waiting = [asyncio.ensure_future(thread.run(Add(number))) for number in range(300)]
        await asyncio.sleep(0)
        thread.close()
        await asyncio.gather(*waiting)

    asyncio.run(main())
    assert len(rows(path)) == 300


def test_a_commit_is_synced(path):
    """NORMAL would lose acknowledged commits on power loss."""
    engine = open_engine(f"sqlite:///{path}", writes=True)
    with engine.begin() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    engine.dispose()


# --- errors of a unit and of the database --------------------------------------------------------


def refused(sql, *parameters):
    def unit(connection):
        return connection.exec_driver_sql(sql, *parameters)

    return unit


def raising(error):
    def unit(connection):
        raise error

    return unit


UNIT_ERRORS = {
    "no such table": refused("SELECT * FROM nowhere"),
    "syntax": refused("SELEC 1"),
    "wrong number of parameters": refused("INSERT INTO t VALUES (?)", (1, 2)),
    "type": refused("INSERT INTO t VALUES (?)", (object(),)),
    "number too large": refused("INSERT INTO t VALUES (?)", (2**70,)),
    "surrogate": refused("SELECT ?", ("\ud800",)),
    "too big": refused("SELECT zeroblob(2000000000)"),
    "mismatch": refused("INSERT INTO t VALUES ('x')"),
    "memory": raising(MemoryError()),
    "recursion": raising(RecursionError()),
    "stop iteration": raising(StopIteration()),
    "system exit": raising(SystemExit(3)),
    "interrupt": raising(KeyboardInterrupt()),
    "generator exit": raising(GeneratorExit()),
    "cancelled": raising(asyncio.CancelledError()),
}


@pytest.mark.parametrize("name", UNIT_ERRORS)
def test_an_error_of_a_unit_is_no_error_of_the_store(thread, path, name):
    """It is raised to its caller; the other units of the group and later ones succeed."""

    async def main():
        bad = UNIT_ERRORS[name]
        units = [thread.run(Add(1)), thread.run(bad), thread.run(Add(2)), thread.run(bad)]
        results = await asyncio.wait_for(asyncio.gather(*units, return_exceptions=True), 10)
        assert await thread.run(Add(3)) == 3
        return results

    first, error, second, again = asyncio.run(main())
    assert (first, second) == (1, 2)
    for found in (error, again):
        assert isinstance(found, Exception)
        assert not isinstance(found, StoreUnavailableError)
    assert rows(path) == [1, 2, 3]


def test_a_locked_database_is_unavailable(path, monkeypatch):
    monkeypatch.setattr("sendback.store.engine.sqlite.BUSY_TIMEOUT_MILLISECONDS", 50)
    thread = TransactionThread(open_engine(f"sqlite:///{path}", writes=True), "test")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    async def main():
        with pytest.raises(StoreUnavailableError, match=r"locked.*another process"):
            await thread.run(Add(1))
        other.execute("ROLLBACK")
        await thread.run(Add(2))

    asyncio.run(main())
    other.close()
    thread.close()
    assert rows(path) == [2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"this is no database " * 100, r"x\.db.*is not a database.*--database"),
        (None, r"x\.db.*damaged.*\.recover"),
    ],
)
def test_the_error_for_a_damaged_file_says_what_to_do(path, content, words):
    octets = path.read_bytes()
    path.write_bytes(content or octets[:1000])
    thread = TransactionThread(open_engine(f"sqlite:///{path}", writes=True), "test")
    with pytest.raises(StoreUnavailableError, match=words):
        asyncio.run(thread.run(Add(1)))
    thread.close()


# --- closing, cancelled callers, connections -----------------------------------------------------


def test_a_closed_store_refuses_at_once(path):
    thread = TransactionThread(open_engine(f"sqlite:///{path}", writes=True), "test")
    thread.close()
    thread.close()  # twice does no harm

    async def main():
        with pytest.raises(StoreUnavailableError, match="closed"):
            await asyncio.wait_for(thread.run(Add(1)), 5)

    asyncio.run(main())


def test_closing_from_many_threads_at_once(path):
    thread = TransactionThread(open_engine(f"sqlite:///{path}", writes=True), "test")
    closers = [threading.Thread(target=thread.close) for _ in range(5)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(10)
        assert not closer.is_alive()


def test_a_cancelled_caller_does_not_affect_the_others(thread, path):
    """Its unit runs too: it may record something that has already happened."""

    async def main():
        waiting = [asyncio.ensure_future(thread.run(Add(number))) for number in range(20)]
        await asyncio.sleep(0)
        waiting[7].cancel()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results.pop(7), asyncio.CancelledError)
        assert results == [number for number in range(20) if number != 7]

    asyncio.run(main())
    assert rows(path) == list(range(20))


def test_a_closed_event_loop_does_not_stop_the_thread(thread, path):
    """The event loop of a caller closes while its unit runs; another loop is served."""
    begun, may_end = threading.Event(), threading.Event()

    def slow(connection):
        begun.set()
        assert may_end.wait(10)

    loop = asyncio.new_event_loop()
    waiting = loop.create_task(thread.run(slow))
    loop.run_until_complete(asyncio.sleep(0))
    assert begun.wait(10)
    waiting.cancel()
    loop.run_until_complete(asyncio.gather(waiting, return_exceptions=True))
    loop.close()
    may_end.set()
    assert asyncio.run(thread.run(Add(5))) == 5
    assert rows(path) == [5]


def test_a_failing_connect_fails_only_the_units_that_wait(path):
    """With any error, also one that is no `Exception`."""
    engine = open_engine(f"sqlite:///{path}", writes=True)
    failures = [SystemExit(1), MemoryError(), RuntimeError("x")]

    @event.listens_for(engine, "connect")
    def fail(*_):
        if failures:
            raise failures.pop()

    thread = TransactionThread(engine, "test")

    async def main():
        for _ in range(3):
            with pytest.raises(Exception):  # noqa: B017, PT011 - they differ
                await asyncio.wait_for(thread.run(Add(1)), 5)
        assert await asyncio.wait_for(thread.run(Add(2)), 5) == 2

    asyncio.run(main())
    thread.close()
    assert rows(path) == [2]
