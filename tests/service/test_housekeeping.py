"""The sweep: what has expired goes, what is still needed stays."""

import asyncio
import os
import time
from datetime import timedelta

import pytest

from sendback.service.housekeeping import Housekeeping
from sendback.store.access.accounts import AddAccount
from sendback.store.access.installation import AcquireLock
from sendback.store.engine.store import Store, prepare_schema
from sendback.store.engine.sweeping import MAX_ROWS, SweepAlone
from sendback.store.messages.messages import BlobsInUse
from sendback.store.outbox.queue import ExpireWaiting, add_to_outbox
from tests.conftest import NOW
from tests.partners.clients import MAIL
from tests.partners.postgresql import database_url
from tests.partners.queue import ACCOUNT, a_bounce

LARGE = MAIL + (b"y" * 98 + b"\r\n") * 4000


def rows(server, query):
    return server.query(query)


def test_content_goes_after_a_day_and_the_record_after_a_fortnight(server, clock):
    server.send_mail()
    server.run(server.app.housekeeping.sweep())
    assert rows(server, "SELECT length(body) > 0 FROM messages") == [(1,)]
    clock.advance(timedelta(hours=25))
    server.run(server.app.housekeeping.sweep())
    assert rows(server, "SELECT body, length(header) FROM messages") == [(None, 0)]
    clock.advance(timedelta(days=14))
    server.run(server.app.housekeeping.sweep())
    assert rows(server, "SELECT count(*) FROM messages") == [(0,)]


def test_finished_bounces_go_after_a_fortnight_with_their_attempts(server, clock):
    answer = server.ses.send_bounce(
        OriginalMessageId=server.send_mail(),
        BounceSender="a@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
    )
    server.bounce(answer["MessageId"])
    assert rows(server, "SELECT count(*) FROM remembered_calls") == [(1,)]
    clock.advance(timedelta(days=13))
    server.run(server.app.housekeeping.sweep())
    assert rows(server, "SELECT count(*) FROM outbox, attempts") == [(1,)]
    assert rows(server, "SELECT count(*) FROM remembered_calls") == [(0,)]
    clock.advance(timedelta(days=2))
    server.run(server.app.housekeeping.sweep())
    assert rows(server, "SELECT count(*) FROM outbox") == [(0,)]
    assert rows(server, "SELECT count(*) FROM attempts") == [(0,)]


@pytest.mark.sqlite("a directory is refused as the content store with PostgreSQL")
def test_a_blob_that_no_row_names_goes_once_it_is_old(server):
    server.send_mail(content=LARGE)
    blobs = server.settings.data_dir / "blobs"
    (kept,) = blobs.iterdir()
    for name, age in (("old-orphan", 7200), ("young-orphan", 60)):
        (blobs / name).write_bytes(b"x")
        os.utime(blobs / name, (time.time() - age,) * 2)
    os.utime(kept, (time.time() - 7200,) * 2)
    server.run(server.app.housekeeping.sweep())
    assert {path.name for path in blobs.iterdir()} == {kept.name, "young-orphan"}


def test_a_sweep_that_breaks_does_not_end_the_sweeping(clock):
    class Spool:
        def empty_spool(self, before):
            pass

    class Broken:
        calls = 0
        contents = Spool()

        async def write(self, unit):
            self.calls += 1
            raise RuntimeError("a bug")

    async def story():
        broken = Broken()
        task = asyncio.create_task(Housekeeping(broken, clock, timedelta(days=14), owner="w").run())
        await asyncio.sleep(0.05)
        assert broken.calls == 1
        assert not task.done()
        task.cancel()

    asyncio.run(story())


# --- many processes, many rows -------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    url = database_url(tmp_path)
    prepare_schema(url)
    instance = Store(url, tmp_path)
    yield instance
    instance.close()


class Counting:
    """A store that notes how many rows each write changed, those that go with others too."""

    def __init__(self, store):
        self._store = store
        self.contents, self.read = store.contents, store.read
        self.changes = []

    async def write(self, unit):
        def counted(connection):
            driver = connection.connection.dbapi_connection
            before = driver.total_changes
            result = unit(connection)
            self.changes.append(driver.total_changes - before)
            return result

        return await self._store.write(counted)


@pytest.mark.sqlite("it counts changes by a number of SQLite's driver")
def test_no_transaction_of_a_sweep_is_large(store, clock):
    """20,000 old bounces, each with its content: 40,000 rows go, a thousand at a time."""

    async def story():
        await store.write(AddAccount(ACCOUNT, NOW))
        old = NOW - timedelta(days=20)
        rows = [a_bounce(f"m{number}", "ann@sender.example", old) for number in range(20_000)]
        await store.write(lambda connection: add_to_outbox(connection, rows))
        sql = "UPDATE outbox SET state = 'delivered'"
        await store.write(lambda connection: connection.exec_driver_sql(sql))
        counting = Counting(store)
        await Housekeeping(counting, clock, timedelta(days=14), owner="w").sweep()
        assert sum(counting.changes) >= 40_000
        assert max(counting.changes) <= 2 * MAX_ROWS
        left = await store.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM outbox").scalar())
        assert left == 0

    asyncio.run(story())


@pytest.mark.sqlite("it counts changes by a number of SQLite's driver")
def test_of_several_processes_one_sweeps(store, clock):
    async def story():
        counting = [Counting(store) for _ in range(5)]
        history = timedelta(days=14)
        sweepers = [
            Housekeeping(each, clock, history, owner=f"w{number}")
            for number, each in enumerate(counting)
        ]
        running = [asyncio.create_task(sweeper.run()) for sweeper in sweepers]
        async with asyncio.timeout(10):
            while not all(each.changes for each in counting):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        # One write each to acquire the lock; its owner writes a dozen times more.
        assert sorted(len(each.changes) > 1 for each in counting) == [False] * 4 + [True]

    asyncio.run(story())


def acquire_lock(store, clock, owner, minutes=10):
    now, longest = clock.now(), timedelta(minutes=10)
    unit = AcquireLock("sweep", owner, now, now + timedelta(minutes=minutes), longest)
    return asyncio.run(store.write(unit))


def test_a_turn_ends_with_its_time_and_survives_a_clock_that_is_set_back(store, clock):
    assert acquire_lock(store, clock, "a")
    assert acquire_lock(store, clock, "a", minutes=5)  # its owner may set another end
    assert not acquire_lock(store, clock, "b")
    clock.advance(timedelta(minutes=6))
    assert acquire_lock(store, clock, "b")
    clock.advance(-timedelta(days=2))
    assert acquire_lock(store, clock, "c")


@pytest.mark.sqlite("it counts changes by a number of SQLite's driver")
def test_a_sweep_that_fails_on_one_table_sweeps_the_others(store, clock, caplog):
    class Failing(Counting):
        async def write(self, unit):
            if isinstance(unit, SweepAlone) and type(unit.step) is ExpireWaiting:
                raise RuntimeError("a bug")
            return await super().write(unit)

    async def story():
        failing = Failing(store)
        await Housekeeping(failing, clock, timedelta(days=14), owner="w").sweep()
        assert len(failing.changes) >= 10

    asyncio.run(story())
    assert "ExpireWaiting failed" in caplog.text


def test_a_hundred_thousand_orphans_are_looked_at_in_pieces(store, clock):
    """(Two thousand here.) Files whose commit never came, and half written ones."""
    spool = store.contents.spool_directory
    blobs = spool.parent / "blobs"
    names = [f"old{number}" for number in range(2000)] + [".old.partial"]
    for name in names:
        (blobs / name).write_bytes(b"")
        os.utime(blobs / name, (1, 1))
    (blobs / "young").write_bytes(b"")
    asked = []
    read = store.read

    async def counted(unit):
        if isinstance(unit, BlobsInUse):
            asked.append(len(unit.names))
        return await read(unit)

    store.read = counted
    asyncio.run(Housekeeping(store, clock, timedelta(days=14), owner="w").sweep())
    assert [path.name for path in blobs.iterdir()] == ["young"]
    assert max(asked) <= MAX_ROWS
    assert sum(asked) == len(names)


def test_the_spool_of_a_node_is_emptied_by_that_node(store, clock):
    """Also when another process has the lock of the sweep."""
    assert acquire_lock(store, clock, "another")
    spool = store.contents.spool_directory
    for name, age in (("old", 7200), ("young", 60)):
        (spool / name).write_bytes(b"x")
        os.utime(spool / name, (time.time() - age,) * 2)

    async def story():
        running = asyncio.create_task(
            Housekeeping(store, clock, timedelta(days=14), owner="w").run()
        )
        async with asyncio.timeout(10):
            while (spool / "old").exists():
                await asyncio.sleep(0.02)
        running.cancel()

    asyncio.run(story())
    assert [path.name for path in spool.iterdir()] == ["young"]


def test_a_body_whose_row_was_swept_before_a_crash_goes_with_the_next_sweep(server, clock):
    """The step is committed, and the process dies before it removes the file."""
    server.send_mail(content=LARGE)
    clock.advance(timedelta(hours=25))
    contents = server.app.store.contents
    remove = contents.remove

    async def die(blobs):
        raise OSError("killed")

    contents.remove = die
    server.run(server.app.housekeeping.sweep())
    assert rows(server, "SELECT blob FROM messages") == [(None,)]
    ((blob, state),) = rows(server, "SELECT blob, state FROM loose_contents")
    assert state == "unused"
    assert server.run(is_there(contents, blob))
    contents.remove = remove
    server.run(server.app.housekeeping.sweep())
    assert not server.run(is_there(contents, blob))
    assert rows(server, "SELECT state FROM loose_contents") == []


async def is_there(contents, blob):
    stored = await contents.body(blob, 0)
    return stored.store.size(stored.name) is not None
