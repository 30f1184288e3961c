"""The worker of any queue: failures are reported, nothing that is raised ends it."""

import asyncio
from datetime import timedelta

import pytest

from sendback.service.queues.worker import LeaseWorker
from sendback.store.engine.errors import StoreUnavailableError

ERRORS = [RuntimeError("a bug"), StoreUnavailableError("full"), MemoryError(), RecursionError()]


class Rows:
    """A queue in memory: `due` are taken, then `suspects` one by one; what happens is noted."""

    def __init__(self, due=(), suspects=()):
        self.due, self.suspects = list(due), list(suspects)
        self.done, self.failures, self.renewed, self.released = [], [], [], []
        self.raises = {}  # by method: what it raises next
        self.working = set()
        self.most_suspects = 0
        self.may_end = asyncio.Event()
        self.may_end.set()

    def _maybe_raise(self, method):
        errors = self.raises.get(method)
        if errors:
            raise errors.pop(0)

    async def take(self, term, limit):
        self._maybe_raise("take")
        taken, self.due = self.due[:limit], self.due[limit:]
        return taken

    async def take_suspect(self, term):
        self._maybe_raise("take_suspect")
        return self.suspects.pop(0) if self.suspects else None

    async def renew(self, term, keys):
        self._maybe_raise("renew")
        self.renewed.append(tuple(keys))

    async def release(self, term, keys):
        self.released.append(tuple(keys))

    async def failed(self, lease, error, term):
        self._maybe_raise("failed")
        self.failures.append((lease, error))

    def key(self, lease):
        return lease

    async def work(self, lease):
        self.working.add(lease)
        suspects = [name for name in self.working if name.startswith("suspect")]
        self.most_suspects = max(self.most_suspects, len(suspects))
        try:
            await self.may_end.wait()
            await asyncio.sleep(0.001)
            self._maybe_raise(lease)
            self.done.append(lease)
        finally:
            self.working.discard(lease)


def worker(rows, clock, **options):
    values = {"owner": "w", "lease": timedelta(seconds=0.3), "concurrency": 5, **options}
    return LeaseWorker(rows, clock, **values)


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def stop(running, *workers):
    for each in workers:
        each.stop()
    await asyncio.gather(*running)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr("sendback.service.queues.worker.POLL_SECONDS", 0.01)


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("method", ["take", "take_suspect", "renew"])
def test_nothing_that_a_queue_raises_ends_its_worker(clock, method, error):
    async def story():
        rows = Rows(["a", "b"], ["suspect"])
        rows.raises[method] = [error, error]
        rows.may_end.clear()
        first = worker(rows, clock)
        running = [asyncio.create_task(first.run())]
        # Renewed after all, though that failed twice.
        await until(lambda: any(len(keys) == 3 for keys in rows.renewed))
        rows.may_end.set()
        await until(lambda: len(rows.done) == 3)
        await stop(running, first)

    asyncio.run(story())


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_its_work_raises_is_reported_and_others_go_on(clock, error):
    async def story():
        rows = Rows(["a", "bad", "c"])
        rows.raises["bad"] = [error]
        first = worker(rows, clock)
        running = [asyncio.create_task(first.run())]
        await until(lambda: len(rows.done) == 2 and rows.failures)
        assert rows.failures == [("bad", error)]
        await until(lambda: first.capacity == 5)
        await stop(running, first)

    asyncio.run(story())


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_failure_that_cannot_be_reported_frees_its_place(clock, error):
    async def story():
        rows = Rows(["bad", "b"])
        rows.raises["bad"] = [RuntimeError("a bug")]
        rows.raises["failed"] = [error]
        first = worker(rows, clock, concurrency=1)
        running = [asyncio.create_task(first.run())]
        await until(lambda: rows.done == ["b"])
        await stop(running, first)

    asyncio.run(story())


def test_of_all_queues_of_a_process_one_suspect_at_a_time_is_worked_on(clock):
    async def story():
        suspects = asyncio.Lock()
        names = [f"suspect{number}" for number in range(20)]
        queues = [Rows(suspects=names), Rows(suspects=names), Rows(["a"] * 3)]
        shared = set()
        for rows in queues:
            rows.working = shared
        options = {"suspects": suspects, "lease": timedelta(seconds=30)}
        workers = [worker(rows, clock, **options) for rows in queues]
        running = [asyncio.create_task(each.run()) for each in workers]
        await until(lambda: all(len(rows.done) == 20 for rows in queues[:2]))
        assert max(rows.most_suspects for rows in queues) == 1
        await stop(running, *workers)

    asyncio.run(story())


def test_a_suspect_that_takes_long_does_not_keep_the_next_for_ever(clock):
    async def story():
        rows = Rows(suspects=["suspect1", "suspect2"])
        rows.may_end.clear()
        first = worker(rows, clock, lease=timedelta(seconds=0.1))
        running = [asyncio.create_task(first.run())]
        await until(lambda: len(rows.working) == 2)
        rows.may_end.set()
        await stop(running, first)

    asyncio.run(story())


def test_a_clean_stop_gives_back_exactly_what_was_not_finished(clock):
    async def story():
        rows = Rows(["a", "b"], ["suspect"])
        rows.may_end.clear()
        first = worker(rows, clock)
        running = [asyncio.create_task(first.run())]
        await until(lambda: len(rows.working) == 3)
        await stop(running, first)
        assert sorted(key for keys in rows.released for key in keys) == ["a", "b", "suspect"]

    asyncio.run(story())


def test_no_statement_names_more_rows_than_a_database_allows(clock):
    """40,000 in progress: with SQLite a statement has 32,766 parameters at most."""

    async def story():
        rows = Rows([f"r{number}" for number in range(2500)])
        rows.may_end.clear()
        first = worker(rows, clock, concurrency=40_000, lease=timedelta(seconds=1))
        running = [asyncio.create_task(first.run())]
        await until(lambda: len(rows.working) == 2500)
        await until(lambda: sum(map(len, rows.renewed)) >= 2500)
        await stop(running, first)
        assert max(map(len, [*rows.renewed, *rows.released])) <= 1000
        assert sum(map(len, rows.released)) == 2500

    asyncio.run(story())


def test_work_that_is_cancelled_before_it_begins_frees_its_capacity(clock):
    rows = Rows()

    async def story():
        cancelled = worker(rows, clock)
        assert cancelled.reserve()
        cancelled.process("begun by nobody")
        async with cancelled.suspended():
            pass
        assert cancelled.capacity == 5
        async with asyncio.timeout(1), cancelled.idle(60):
            pass

    asyncio.run(story())
    assert rows.done == []
    assert rows.released == [("begun by nobody",)]


def test_a_row_that_is_due_again_before_its_work_has_ended(clock):
    rows = Rows()

    async def story():
        rows.may_end.clear()
        busy = worker(rows, clock)
        for _ in range(2):
            assert busy.reserve()
            busy.process("twice")
        assert busy.capacity == 3
        rows.may_end.set()
        async with asyncio.timeout(1), busy.idle(60):
            assert rows.done == ["twice", "twice"]
        assert busy.capacity == 5

    asyncio.run(story())
