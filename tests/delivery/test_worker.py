"""The worker: leases that pass, messages that break it, a clean stop."""

import asyncio
from datetime import timedelta

import pytest

from sendback.crypto.sealing import SecretError
from sendback.delivery.transports import Capture, Result
from sendback.delivery.worker import DeliveryWorker, RetryPolicy
from sendback.service.queues.retry import Backoff
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.leasing import Term
from sendback.store.engine.store import Store, prepare_schema
from sendback.store.outbox.control import FindOutboxMessage
from sendback.store.outbox.queue import TakeLeases, add_to_outbox
from sendback.store.outbox.rows import Outcome
from tests.conftest import NOW
from tests.partners.postgresql import database_url
from tests.partners.queue import ACCOUNT, a_bounce

BACKOFF = Backoff(timedelta(seconds=60), timedelta(hours=4))


@pytest.fixture
def store(tmp_path):
    url = database_url(tmp_path)
    prepare_schema(url)
    instance = Store(url, tmp_path)
    yield instance
    instance.close()


class NoFaults:
    points = frozenset()


class Slow(Capture):
    """Delivers when it is told to."""

    def __init__(self):
        super().__init__(NoFaults())
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.delivered = []

    async def deliver(self, message):
        self.started.set()
        await self.may_end.wait()
        self.delivered.append(message.message_id)
        return Result(Outcome.DELIVERED, "peer", "250 ok")


class Broken(Capture):
    async def deliver(self, message):
        raise RuntimeError("a bug")


def worker(store, clock, transport, **options):
    values = {
        "owner": "w1",
        "retry_policy": RetryPolicy(BACKOFF, BACKOFF),
        "lease": timedelta(seconds=30),
        "capacity": 10,
        **options,
    }
    return DeliveryWorker(store, clock, transport, **values)


async def queue(store, *ids):
    await store.write(AddAccount(ACCOUNT, NOW))
    rows = [a_bounce(message_id, "ann@sender.example", NOW) for message_id in ids]
    await store.write(lambda connection: add_to_outbox(connection, rows))


def take(clock):
    term = Term("w2", clock.now(), clock.now())
    return TakeLeases(term, 10, capacity=10, probes=10, capacities={})


async def show(store, message_id):
    return await store.read(FindOutboxMessage(ACCOUNT, message_id))


def test_a_worker_that_wakes_after_its_lease_has_passed_marks_nothing(store, clock):
    async def story():
        await queue(store, "m1")
        slow = Slow()
        first = worker(store, clock, slow, lease=timedelta(hours=1))
        running = asyncio.create_task(first.run())
        await slow.started.wait()
        clock.advance(timedelta(hours=2))  # the first worker was asleep all that time
        leases = await store.write(take(clock))
        assert [lease.message.message_id for lease in leases] == ["m1"]
        slow.may_end.set()
        first.stop()
        await running
        message, attempts = await show(store, "m1")
        assert message.state == "queued"
        assert attempts == []

    asyncio.run(story())


def test_leases_are_renewed_while_the_worker_lives(store, clock):
    async def story():
        await queue(store, "m1")
        slow = Slow()
        first = worker(store, clock, slow, lease=timedelta(seconds=0.3))
        running = asyncio.create_task(first.run())
        await slow.started.wait()
        clock.advance(timedelta(seconds=10))
        await asyncio.sleep(0.25)
        assert not await store.write(take(clock))
        slow.may_end.set()
        first.stop()
        await running
        assert (await show(store, "m1"))[0].state == "delivered"

    asyncio.run(story())


def test_a_clean_stop_finishes_what_is_on_the_wire(store, clock):
    async def story():
        await queue(store, "m1")
        slow = Slow()
        first = worker(store, clock, slow)
        running = asyncio.create_task(first.run())
        await slow.started.wait()
        first.stop()
        await asyncio.sleep(0.05)
        slow.may_end.set()
        await running
        assert (await show(store, "m1"))[0].state == "delivered"

    asyncio.run(story())


def test_a_stop_gives_back_what_could_not_be_finished(store, clock):
    async def story():
        await queue(store, "m1")
        slow = Slow()
        first = worker(store, clock, slow, lease=timedelta(seconds=0.2))
        running = asyncio.create_task(first.run())
        await slow.started.wait()
        first.stop()
        await running
        message, _ = await show(store, "m1")
        assert (message.state, message.due_at) == ("queued", clock.now())

    asyncio.run(story())


def test_a_message_that_breaks_the_transport_is_backed_off_and_seen(store, clock):
    async def story():
        await queue(store, "m1")
        first = worker(store, clock, Broken(NoFaults()))
        running = asyncio.create_task(first.run())
        while not (await show(store, "m1"))[0].attempts:
            await asyncio.sleep(0.01)
        first.stop()
        await running
        message, attempts = await show(store, "m1")
        assert message.state == "queued"
        assert "a bug" in attempts[0].reply

    asyncio.run(story())


def test_more_messages_than_it_holds_are_all_delivered_once(store, clock):
    async def story():
        ids = [f"m{number}" for number in range(105)]
        await queue(store, *ids)
        slow = Slow()
        slow.may_end.set()
        workers = [worker(store, clock, slow, owner=f"w{n}", capacity=7) for n in range(3)]
        running = [asyncio.create_task(each.run()) for each in workers]
        while len(slow.delivered) < len(ids):
            await asyncio.sleep(0.01)
        for each in workers:
            each.stop()
        await asyncio.gather(*running)
        assert sorted(slow.delivered) == sorted(ids)

    asyncio.run(story())


class Partly(Slow):
    """Slow for some of its messages."""

    async def deliver(self, message):
        if message.message_id.startswith("slow"):
            return await super().deliver(message)
        self.delivered.append(message.message_id)
        return Result(Outcome.DELIVERED, "peer", "250 ok")


def test_what_takes_long_does_not_keep_the_rest_waiting(store, clock):
    """Seven of eight in hand are slow: the others go through one by one."""

    async def story():
        await queue(store, *(f"slow{number}" for number in range(7)))
        transport = Partly()
        first = worker(store, clock, transport, capacity=8)
        running = asyncio.create_task(first.run())
        await transport.started.wait()
        await queue(store, *(f"m{number}" for number in range(5)))
        first.wake()
        async with asyncio.timeout(10):
            while len(transport.delivered) < 5:
                await asyncio.sleep(0.01)
        transport.may_end.set()
        first.stop()
        await running

    asyncio.run(story())


async def attempts_until(store, clock, message_id, state):
    """Moves the clock on until the message is in that state; returns it with its attempts."""
    for _ in range(60):
        message, attempts = await show(store, message_id)
        if message.state == state:
            return message, attempts
        clock.advance(timedelta(hours=5))
        await asyncio.sleep(0.1)
    raise AssertionError(message)


@pytest.mark.parametrize("lasts", [timedelta(days=5), timedelta(seconds=1)])
def test_a_message_that_always_breaks_the_transport_is_held_and_never_expires(
    store, clock, lasts, monkeypatch
):
    monkeypatch.setattr("sendback.service.queues.worker.POLL_SECONDS", 0.01)

    async def story():
        await store.write(AddAccount(ACCOUNT, NOW))
        row = a_bounce("m1", "ann@sender.example", NOW, expires_at=NOW + lasts)
        await store.write(lambda connection: add_to_outbox(connection, [row]))
        first = worker(store, clock, Broken(NoFaults()))
        running = asyncio.create_task(first.run())
        message, attempts = await attempts_until(store, clock, "m1", "held")
        first.stop()
        await running
        assert "internal error: RuntimeError('a bug')" in message.last_reply
        assert len(attempts) == (5 if lasts.days else 1)

    asyncio.run(story())


class Raising(Capture):
    """Raises one error after the other, then delivers."""

    def __init__(self, *errors):
        super().__init__(NoFaults())
        self.errors = list(errors)
        self.delivered = []

    async def deliver(self, message):
        if self.errors:
            raise self.errors.pop(0)
        self.delivered.append(message.message_id)
        return Result(Outcome.DELIVERED, "peer", "250 ok")


def test_a_store_that_cannot_be_read_is_no_attempt_and_no_failure(store, clock, monkeypatch):
    """Twenty times, which would be enough to set it aside four times."""
    monkeypatch.setattr("sendback.service.queues.worker.POLL_SECONDS", 0.01)

    async def story():
        await queue(store, "m1")
        transport = Raising(*[StoreUnavailableError("locked") for _ in range(20)])
        first = worker(store, clock, transport)
        running = asyncio.create_task(first.run())
        seen = set()
        async with asyncio.timeout(20):
            while not transport.delivered:
                message, attempts = await show(store, "m1")
                seen.add(message.last_reply)
                assert (message.state, attempts) == ("queued", [])
                clock.advance(timedelta(seconds=30))
                await asyncio.sleep(0.02)
        first.stop()
        await running
        assert "the store is unavailable: locked" in seen
        assert len((await show(store, "m1"))[1]) == 1

    asyncio.run(story())


def test_what_cannot_be_signed_is_tried_again_and_not_sent(store, clock, monkeypatch):
    monkeypatch.setattr("sendback.service.queues.worker.POLL_SECONDS", 0.01)

    async def story():
        await queue(store, "m1")
        transport = Raising(SecretError("sealed with another secret"))
        first = worker(store, clock, transport)
        running = asyncio.create_task(first.run())
        message, attempts = await attempts_until(store, clock, "m1", "delivered")
        first.stop()
        await running
        assert [attempt.outcome.value for attempt in attempts] == ["temporary", "delivered"]
        assert attempts[0].reply == "4.7.5 it cannot be signed: sealed with another secret"

    asyncio.run(story())
