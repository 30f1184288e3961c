"""Wake-ups between processes that share a database: two stores in this process are two of them."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sendback.store.access.accounts import AddAccount
from sendback.store.access.installation import CheckWrite
from sendback.store.engine.store import Store, prepare_schema
from sendback.store.engine.wakeups import Subject, wake
from tests.conftest import NOW, need
from tests.partners.pgbouncer import PgBouncer
from tests.partners.postgresql import binaries, shared_server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        prepare_schema(found := f"sqlite:///{tmp_path / 'x.db'}")
        return found
    need("PostgreSQL", available=binaries() is not None)
    return shared_server().create()


class Worker:
    """A worker that counts how often it is woken."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


@asynccontextmanager
async def processes(url: str, folder: Path, *capacities: int, listen_url: str = ""):
    """A store for each capacity, with a worker for deliveries that has it."""
    stores = [Store(url, folder, listen_url=listen_url) for _ in capacities]
    workers = [Worker(capacity) for capacity in capacities]
    try:
        for store, worker in zip(stores, workers, strict=True):
            store.channel.start()
            store.wakeups.serve(Subject.DELIVERY, worker)
        await asyncio.sleep(0.5)  # they listen by then
        yield stores, workers
    finally:
        for store in stores:
            store.close()


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def some_work(connection):
    wake(connection, Subject.DELIVERY)


def work_that_fails(connection):
    wake(connection, Subject.DELIVERY)
    raise ValueError("the unit fails")


def test_work_wakes_the_worker_of_its_own_process_and_no_other(url, tmp_path):
    async def main():
        async with processes(url, tmp_path, 1, 1) as (stores, workers):
            for _ in range(3):
                await stores[0].write(some_work)
            await until(lambda: workers[0].woken == 3)
            await asyncio.sleep(0.3)
            assert workers[1].woken == 0

    asyncio.run(main())


def test_without_capacity_all_others_are_woken_once_for_a_transaction(url, tmp_path):
    def much_work(connection):
        for _ in range(50):
            wake(connection, Subject.DELIVERY)

    async def main():
        async with processes(url, tmp_path, 0, 1, 1) as (stores, workers):
            await stores[0].write(much_work)
            await until(lambda: workers[1].woken and workers[2].woken)
            await asyncio.sleep(0.3)
            assert (workers[1].woken, workers[2].woken) == (1, 1)

    asyncio.run(main())


def test_a_process_without_a_worker_wakes_those_that_have_one(url, tmp_path):
    """A command, which does not receive messages either."""

    async def main():
        async with processes(url, tmp_path, 1) as (_, workers):
            command = Store(url, tmp_path)
            await command.write(some_work)
            command.close()
            await until(lambda: workers[0].woken == 1)

    asyncio.run(main())


def test_a_transaction_that_fails_wakes_nobody(url, tmp_path):
    async def main():
        async with processes(url, tmp_path, 0, 1) as (stores, workers):
            with pytest.raises(ValueError, match="the unit fails"):
                await stores[0].write(work_that_fails)
            await stores[0].write(CheckWrite(NOW))
            await asyncio.sleep(0.3)
            assert [worker.woken for worker in workers] == [0, 0]

    asyncio.run(main())


def test_a_change_makes_the_caches_of_others_stale_at_once(url, tmp_path):
    async def main():
        async with processes(url, tmp_path, 1, 1) as (stores, _):
            other = stores[1].changes
            await other.refresh()
            count = other.count
            assert other.is_fresh
            await stores[0].write(AddAccount("111111111111", NOW))
            began = asyncio.get_running_loop().time()
            await until(lambda: not other.is_fresh)
            took = asyncio.get_running_loop().time() - began
            await other.refresh()
            assert other.count != count
            assert took < 0.4, "the caches were stale by themselves"

    asyncio.run(main())


def test_a_lost_connection_listens_again():
    need("PostgreSQL", available=binaries() is not None)
    url = shared_server().create()

    async def main():
        async with processes(url, Path("/nowhere"), 0, 1) as (stores, workers):
            shared_server().execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                f"WHERE datname = '{url.partition('@/')[2].partition('?')[0]}' "
                "AND query LIKE 'LISTEN%'"
            )
            async with asyncio.timeout(30):
                while not workers[1].woken:
                    await stores[0].write(some_work)
                    await asyncio.sleep(0.1)

    asyncio.run(main())


def test_behind_a_pooler_a_process_does_not_listen_and_says_so(tmp_path, caplog):
    need("PgBouncer", available=PgBouncer.is_installed())
    direct = shared_server().create()

    async def main():
        with PgBouncer(shared_server(), tmp_path) as pooler:
            url = pooler.url(direct)
            async with (
                processes(url, tmp_path, 0, 1) as (stores, workers),
                processes(url, tmp_path, 1, listen_url=direct) as (_, listening),
            ):
                await until(lambda: "there is a connection pooler" in caplog.text)
                await stores[0].write(some_work)
                await until(lambda: listening[0].woken == 1)
                assert workers[1].woken == 0

    asyncio.run(main())
