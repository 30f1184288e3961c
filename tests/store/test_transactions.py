"""Group commit: units that wait together share a transaction, and fail apart."""

import asyncio
import sqlite3
from dataclasses import dataclass

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from sendback.store.dialects import open_engine
from sendback.store.errors import StoreUnavailableError
from sendback.store.transactions import BatchUnit, TransactionThread


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


def test_units_that_wait_together_are_done_together(thread, path):
    groups.clear()

    async def main():
        return await asyncio.gather(*(thread.run(Add(number)) for number in range(100)))

    assert asyncio.run(main()) == list(range(100))
    assert rows(path) == list(range(100))
    assert len(groups) < 50


def test_a_unit_that_fails_takes_no_other_with_it(thread, path):
    async def main():
        await thread.run(Add(7))
        units = [thread.run(Add(number)) for number in range(10)]
        return await asyncio.gather(*units, return_exceptions=True)

    results = asyncio.run(main())
    assert isinstance(results.pop(7), IntegrityError)
    assert results == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert rows(path) == list(range(10))


def test_what_a_failed_unit_wrote_is_undone(thread, path):
    def half(connection):
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        asyncio.run(thread.run(half))
    assert rows(path) == []


def test_a_full_disk_is_unavailable_and_recovers_by_itself(thread, path):
    """SQLITE_FULL, for real: the database may not grow by a page."""

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
        # The connection was given up with the limit that it had: the disk has room again.
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
