"""How much goes to one domain at once."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.delivery.domain_concurrency import DomainConcurrency


def pass_one(concurrency, name="a.example"):
    """One message goes through."""
    concurrency.add_leased(name)
    assert asyncio.run(concurrency.enter(name))
    concurrency.leave(name)
    concurrency.record_reply(name)
    concurrency.remove_leased(name)


def test_a_domain_begins_with_one_and_doubles():
    concurrency, capacities = DomainConcurrency(10), []
    for _ in range(6):
        capacities.append(concurrency.capacities().get("a.example", concurrency.initial_capacity))
        pass_one(concurrency)
    assert capacities == [1, 4, 8, 16, 20, 20]  # twice the window: 1, 2, 4, 8, 10, 10


def test_more_messages_of_a_fast_domain_are_leased():
    """As much as it answers in half a second, within limits."""
    moment = [1.0]
    concurrency = DomainConcurrency(10, lambda: moment[0])
    for _ in range(50):
        moment[0] += 0.01  # a hundred a second
        pass_one(concurrency)
    assert 45 <= concurrency.capacities()["a.example"] <= 55
    for _ in range(1000):
        moment[0] += 0.0001
        pass_one(concurrency)
    assert concurrency.capacities()["a.example"] == 200
    for _ in range(10):
        moment[0] += 2
        pass_one(concurrency)
    assert concurrency.capacities()["a.example"] == 20


def test_a_domain_that_failed_begins_anew():
    concurrency = DomainConcurrency(10)
    for _ in range(5):
        pass_one(concurrency)
    concurrency.add_leased("a.example")
    asyncio.run(concurrency.enter("a.example"))
    concurrency.record_failure("a.example")
    concurrency.leave("a.example")
    concurrency.remove_leased("a.example")
    assert "a.example" not in concurrency.capacities()


def test_not_more_domains_are_remembered_than_a_thousand():
    concurrency = DomainConcurrency(10)
    for number in range(1100):
        pass_one(concurrency, f"d{number}.example")
    assert len(concurrency.capacities()) == 1000


def test_without_a_limit_there_are_none():
    concurrency = DomainConcurrency(None)
    assert concurrency.initial_capacity is None
    for _ in range(100):
        concurrency.add_leased("a.example")
        assert asyncio.run(concurrency.enter("a.example"))
    assert concurrency.capacities() == {}


def test_waiting_messages_are_requeued_when_the_domain_fails():
    async def story():
        concurrency = DomainConcurrency(10)
        for _ in range(3):
            concurrency.add_leased("a.example")
        assert await concurrency.enter("a.example")
        waiting = [asyncio.create_task(concurrency.enter("a.example")) for _ in range(2)]
        await asyncio.sleep(0)
        concurrency.record_failure("a.example")
        concurrency.leave("a.example")
        assert await asyncio.gather(*waiting) == [False, False]
        for _ in range(3):
            concurrency.remove_leased("a.example")
        concurrency.add_leased("a.example")  # as a probe
        assert await concurrency.enter("a.example")

    asyncio.run(story())


def test_who_is_cancelled_while_waiting_takes_no_place():
    async def story():
        concurrency = DomainConcurrency(10)
        for _ in range(3):
            concurrency.add_leased("a.example")
        await concurrency.enter("a.example")
        gone, next_one = (asyncio.create_task(concurrency.enter("a.example")) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        concurrency.leave("a.example")
        assert await asyncio.wait_for(next_one, 1)

    asyncio.run(story())


def test_the_fifth_refusal_in_a_row_is_one_too_many():
    concurrency = DomainConcurrency(10)
    concurrency.add_leased("a.example")
    assert [concurrency.count_refusal("a.example") for _ in range(5)] == [False] * 4 + [True]
    concurrency.record_reply("a.example")
    assert not concurrency.count_refusal("a.example")


_STEPS = st.lists(st.sampled_from(["take", "enter", "answer", "fail"]), max_size=60)


class Play:
    """A domain's window, and what should be in it."""

    def __init__(self):
        self.concurrency, self.held, self.on_wire = DomainConcurrency(4), 0, 0
        self.waiting = []

    def take(self):
        self.concurrency.add_leased("d")
        self.held += 1

    def enter(self):
        if self.held > self.on_wire + len(self.waiting):
            self.waiting.append(asyncio.create_task(self.concurrency.enter("d")))

    def answer(self):
        if self.on_wire:
            self.concurrency.record_reply("d")
            self._leave()

    def fail(self):
        if self.on_wire:
            self.concurrency.record_failure("d")
            self._leave()

    def _leave(self):
        self.concurrency.leave("d")
        self.concurrency.remove_leased("d")
        self.on_wire, self.held = self.on_wire - 1, self.held - 1

    async def settle(self):
        for _ in range(2):
            await asyncio.sleep(0)
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if task.result():
                self.on_wire += 1
            else:
                self.concurrency.remove_leased("d")
                self.held -= 1

    def check(self):
        assert self.on_wire <= 4
        assert self.concurrency.counts("d") == (self.on_wire, self.held)


@pytest.mark.fuzz
@given(_STEPS)
def test_never_more_on_the_wire_than_the_window_allows(steps):
    async def story():
        play = Play()
        for step in steps:
            getattr(play, step)()
            await play.settle()
            play.check()
        for task in play.waiting:
            task.cancel()

    asyncio.run(story())
