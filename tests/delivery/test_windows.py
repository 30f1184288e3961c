"""How much goes to one domain at once."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.delivery.windows import Windows


def pass_one(windows, name="a.example"):
    """One message goes through."""
    windows.take(name)
    assert asyncio.run(windows.enter(name))
    windows.leave(name)
    windows.answered(name)
    windows.give(name)


def test_a_domain_begins_with_one_and_doubles():
    windows, rooms = Windows(10), []
    for _ in range(6):
        rooms.append(windows.rooms().get("a.example", windows.first_room))
        pass_one(windows)
    assert rooms == [1, 4, 8, 16, 20, 20]  # twice the window: 1, 2, 4, 8, 10, 10


def test_more_messages_of_a_fast_domain_are_leased():
    """As much as it answers in half a second, within limits."""
    moment = [1.0]
    windows = Windows(10, lambda: moment[0])
    for _ in range(50):
        moment[0] += 0.01  # a hundred a second
        pass_one(windows)
    assert 45 <= windows.rooms()["a.example"] <= 55
    for _ in range(1000):
        moment[0] += 0.0001
        pass_one(windows)
    assert windows.rooms()["a.example"] == 200
    for _ in range(10):
        moment[0] += 2
        pass_one(windows)
    assert windows.rooms()["a.example"] == 20


def test_a_domain_that_failed_begins_anew():
    windows = Windows(10)
    for _ in range(5):
        pass_one(windows)
    windows.take("a.example")
    asyncio.run(windows.enter("a.example"))
    windows.failed("a.example")
    windows.leave("a.example")
    windows.give("a.example")
    assert "a.example" not in windows.rooms()


def test_not_more_domains_are_remembered_than_a_thousand():
    windows = Windows(10)
    for number in range(1100):
        pass_one(windows, f"d{number}.example")
    assert len(windows.rooms()) == 1000


def test_without_a_limit_there_are_none():
    windows = Windows(None)
    assert windows.first_room is None
    for _ in range(100):
        windows.take("a.example")
        assert asyncio.run(windows.enter("a.example"))
    assert windows.rooms() == {}


def test_waiting_messages_are_requeued_when_the_domain_fails():
    async def story():
        windows = Windows(10)
        for _ in range(3):
            windows.take("a.example")
        assert await windows.enter("a.example")
        waiting = [asyncio.create_task(windows.enter("a.example")) for _ in range(2)]
        await asyncio.sleep(0)
        windows.failed("a.example")
        windows.leave("a.example")
        assert await asyncio.gather(*waiting) == [False, False]
        for _ in range(3):
            windows.give("a.example")
        windows.take("a.example")  # as a probe
        assert await windows.enter("a.example")

    asyncio.run(story())


def test_who_is_cancelled_while_waiting_takes_no_place():
    async def story():
        windows = Windows(10)
        for _ in range(3):
            windows.take("a.example")
        await windows.enter("a.example")
        gone, next_one = (asyncio.create_task(windows.enter("a.example")) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        windows.leave("a.example")
        assert await asyncio.wait_for(next_one, 1)

    asyncio.run(story())


def test_the_fifth_refusal_in_a_row_is_one_too_many():
    windows = Windows(10)
    windows.take("a.example")
    assert [windows.strike("a.example") for _ in range(5)] == [False] * 4 + [True]
    windows.answered("a.example")
    assert not windows.strike("a.example")


_STEPS = st.lists(st.sampled_from(["take", "enter", "answer", "fail"]), max_size=60)


class Play:
    """A domain's window, and what should be in it."""

    def __init__(self):
        self.windows, self.held, self.on_wire = Windows(4), 0, 0
        self.waiting = []

    def take(self):
        self.windows.take("d")
        self.held += 1

    def enter(self):
        if self.held > self.on_wire + len(self.waiting):
            self.waiting.append(asyncio.create_task(self.windows.enter("d")))

    def answer(self):
        if self.on_wire:
            self.windows.answered("d")
            self._leave()

    def fail(self):
        if self.on_wire:
            self.windows.failed("d")
            self._leave()

    def _leave(self):
        self.windows.leave("d")
        self.windows.give("d")
        self.on_wire, self.held = self.on_wire - 1, self.held - 1

    async def settle(self):
        for _ in range(2):
            await asyncio.sleep(0)
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if task.result():
                self.on_wire += 1
            else:
                self.windows.give("d")
                self.held -= 1

    def check(self):
        domain = self.windows._domains.get("d")
        assert (domain.on_wire if domain else 0) == self.on_wire <= 4
        assert (domain.leased if domain else 0) == self.held


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
