"""Two nodes whose clocks differ by two minutes do what nodes with one clock do."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from sendback.clock import ManualClock, SystemClock
from sendback.service.database_clock import DatabaseClock
from sendback.store.access.installation import AcquireLock
from sendback.store.bouncing.bounces import QueueBounce
from sendback.store.engine.errors import RateLimitedError
from sendback.store.engine.leasing import Term
from sendback.store.engine.store import Store
from sendback.store.outbox.queue import ExpireWaiting, TakeLeases, add_to_outbox
from tests.conftest import NOW
from tests.partners.queue import a_bounce

SKEW = timedelta(minutes=2)
LEASE = timedelta(seconds=30)


class SkewedNode:
    """A store, and the clock of a machine that is wrong."""

    def __init__(self, url, folder, wrong_by):
        self.store = Store(url, folder)
        self.wrong_by = wrong_by
        self.clock = SystemClock(machine=self.machine)
        self.database_clock = DatabaseClock(self.store, self.clock)

    def machine(self):
        return datetime.now(UTC) + self.wrong_by

    async def take(self, owner, later=timedelta(0)):
        now = self.clock.now() + later
        return await self.store.write(TakeLeases(Term(owner, now, now + LEASE), 10, 10, 1, {}))

    async def add(self, name, **changes):
        message = a_bounce(name, "x@a.example", self.clock.now(), **changes)
        await self.store.write(lambda connection: add_to_outbox(connection, [message]))

    async def bounce(self, name, interval=timedelta(seconds=1)):
        """Whether the rate limit permits it."""
        message = a_bounce(name, "x@a.example", self.clock.now())
        try:
            await self.store.write(QueueBounce(message, None, interval))
        except RateLimitedError:
            return False
        return True


@pytest.fixture
def nodes(url, tmp_path):
    """The first is two minutes fast, the second right, the third two minutes slow."""
    found = [
        SkewedNode(url, tmp_path / str(number), by)
        for number, by in enumerate((SKEW, timedelta(0), -SKEW))
    ]
    for node in found:
        asyncio.run(node.database_clock.measure())
    yield found
    for node in found:
        node.store.close()


def run(story):
    return asyncio.run(story)


def test_all_nodes_show_the_time_of_the_database(nodes, race):
    ((now,),) = race.query("SELECT clock_timestamp()")
    for node in nodes:
        assert abs(node.clock.now() - now) < timedelta(seconds=1)


def test_a_lease_ends_for_all_nodes_at_the_same_time(nodes):
    fast, right, slow = nodes

    async def story():
        await fast.add("m1")
        assert len(await slow.take("slow")) == 1  # due, though its date was the fast node's
        for node in nodes:
            assert await node.take("x", LEASE - timedelta(seconds=5)) == []
        assert len(await right.take("right", LEASE + timedelta(seconds=5))) == 1

    run(story())


def test_the_rate_limit_holds_and_does_not_last_longer(nodes):
    fast, _, slow = nodes

    async def story():
        assert await fast.bounce("m1")
        assert not await slow.bounce("m2")
        await asyncio.sleep(1.1)
        assert await slow.bounce("m3")
        assert not await fast.bounce("m4")
        await asyncio.sleep(1.1)
        assert await fast.bounce("m5")

    run(story())


def test_mail_expires_on_its_date(nodes):
    fast, right, slow = nodes

    async def story():
        soon = right.clock.now() + timedelta(minutes=1)
        await slow.add("m1", expires_at=soon)
        for node in nodes:
            assert (await node.store.write(ExpireWaiting(now=node.clock.now()))).count == 0
        later = ExpireWaiting(now=fast.clock.now() + timedelta(minutes=1, seconds=5))
        assert (await fast.store.write(later)).count == 1

    run(story())


def test_one_node_sweeps(nodes):
    fast, _, slow = nodes
    lasts = timedelta(minutes=1)

    async def acquire(node, owner):
        now = node.clock.now()
        return await node.store.write(AcquireLock("sweep", owner, now, now + lasts, 10 * lasts))

    async def story():
        assert await acquire(slow, "slow")
        assert not await acquire(fast, "fast")

    run(story())


def test_a_clock_that_is_set_is_corrected_again(nodes, caplog):
    node = nodes[1]

    async def story():
        node.wrong_by = -timedelta(hours=1)
        with caplog.at_level(logging.WARNING):
            assert await node.database_clock.measure()
        assert abs(node.clock.now() - datetime.now(UTC)) < timedelta(seconds=1)

    run(story())
    assert "clock_differs seconds=-3600.0" in caplog.text


def test_clocks_that_agree_are_not_corrected(nodes):
    """The measurement differs by some microseconds each time."""
    node = nodes[1]

    async def story():
        for _ in range(20):
            await node.database_clock.measure()
            assert node.clock.correction == timedelta(0)

    run(story())


def test_a_clock_that_a_test_moves_is_not_corrected(nodes):
    clock = ManualClock(NOW)
    node = nodes[0]

    async def story():
        assert not await DatabaseClock(node.store, clock).measure()

    run(story())
    assert clock.now() == NOW


def test_the_offset_of_a_test_stays(url, tmp_path):
    """The setting `clock_offset` moves the clock on purpose."""
    store = Store(url, tmp_path)
    clock = SystemClock(timedelta(days=1), machine=lambda: datetime.now(UTC) + SKEW)
    asyncio.run(DatabaseClock(store, clock).measure())
    store.close()
    assert abs(clock.now() - timedelta(days=1) - datetime.now(UTC)) < timedelta(seconds=1)


def test_sqlite_needs_no_correction(tmp_path):
    store = Store(f"sqlite:///{tmp_path / 'x.db'}", tmp_path)
    clock = SystemClock(machine=lambda: NOW)
    assert not asyncio.run(DatabaseClock(store, clock).measure())
    store.close()
    assert clock.now() == NOW
