"""What is counted of events, and how it is added to the store."""

import asyncio
from datetime import timedelta

import pytest

from sendback.service.events.bus import EventBus
from sendback.service.events.counters import MAX_DOMAINS, OTHER, Counters
from sendback.service.events.model import Event, EventKind
from sendback.service.events.reports import status_of
from sendback.store.engine.errors import CommitUnknownError, StoreUnavailableError
from sendback.store.events.counters import AddCounts
from tests.conftest import NOW

MINUTE = int(NOW.timestamp()) // 60


class FakeStore:
    """A store that keeps what is added, and fails as it is told to."""

    def __init__(self) -> None:
        self.added: dict[tuple[str, int, str, str], int] = {}
        self.error: Exception | None = None

    async def write(self, unit: AddCounts) -> None:
        if self.error is not None:
            raise self.error
        for key, number in unit.counts.items():
            self.added[key] = self.added.get(key, 0) + number


@pytest.fixture
def store():
    return FakeStore()


@pytest.fixture
def counters(store):
    return Counters(store)


def received(domain="example.com", date=NOW) -> Event:
    fields = {"to": [f"bob@{domain}"]}
    return Event(EventKind.RECEIVED, "000000000000", date, "m", fields)


def refused(reply: str) -> Event:
    return Event(EventKind.REFUSED, None, NOW, None, {"reply": reply})


def attempt(outcome: str, state: str) -> Event:
    fields = {"outcome": outcome, "state": state, "recipient": "Ann@Sender.example"}
    return Event(EventKind.ATTEMPT, "000000000000", NOW, "b", fields)


def flushed(counters, store) -> dict[tuple[str, str], int]:
    asyncio.run(counters.flush())
    return {key[2:]: number for key, number in store.added.items()}


@pytest.mark.parametrize(
    ("event", "key"),
    [
        (received("Example.COM"), ("received", "example.com")),
        (refused("550 5.1.1 no such user"), ("refused", "5.1.1")),
        (refused("550-5.1.1 no such\r\n550 5.1.1 user"), ("refused", "5.1.1")),
        (refused("554 no service here"), ("refused", "554")),
        (refused("nonsense"), ("refused", OTHER)),
        (attempt("delivered", "delivered"), ("delivered", "sender.example")),
        (attempt("captured", "captured"), ("captured", "sender.example")),
        (attempt("temporary", "queued"), ("deferred", "sender.example")),
        (attempt("temporary", "expired"), ("failed", "sender.example")),
        (attempt("temporary", "held"), ("deferred", "sender.example")),
        (attempt("permanent", "failed"), ("failed", "sender.example")),
        (
            Event(EventKind.BOUNCE, "0", NOW, "b", {"by": "rule", "status": "5.2.2"}),
            ("bounced", "rule 5.2.2"),
        ),
        (
            Event(EventKind.BOUNCE, "0", NOW, "b", {"by": "api", "status": None}),
            ("bounced", "api none"),
        ),
    ],
)
def test_what_is_counted(counters, store, event, key):
    counters.count(event)
    counters.count(event)
    assert flushed(counters, store) == {key: 2}


def test_other_events_are_not_counted(counters, store):
    counters.count(Event(EventKind.STEP, "0", NOW, "m", {}))
    assert flushed(counters, store) == {}


def test_the_bus_counts_what_is_published_here_alone(counters, store):
    bus = EventBus()
    bus.count_with(counters.count)
    bus.publish(received())
    bus.accept(received().with_id(bus.now()))
    assert flushed(counters, store) == {("received", "example.com"): 1}


def test_an_event_that_cannot_be_counted_is_published(counters):
    bus = EventBus()
    bus.count_with(counters.count)
    bus.publish(Event(EventKind.RECEIVED, None, NOW, "m", {}))
    assert len(bus.kept()) == 1


def test_the_number_of_domains_of_an_hour_is_bounded(counters, store):
    for number in range(MAX_DOMAINS + 7):
        counters.count(received(f"d{number}.example"))
    counters.count(received("d0.example"))
    found = flushed(counters, store)
    assert len(found) == MAX_DOMAINS + 1
    assert found["received", OTHER] == 7
    assert found["received", "d0.example"] == 2
    counters.count(received("next.example", NOW + timedelta(hours=1)))
    assert flushed(counters, store)["received", "next.example"] == 1


def test_what_could_not_be_added_is_added_later(counters, store):
    counters.count(received())
    store.error = StoreUnavailableError("no")
    with pytest.raises(StoreUnavailableError):
        asyncio.run(counters.flush())
    counters.count(received())
    store.error = None
    assert flushed(counters, store) == {("received", "example.com"): 2}


def test_what_may_be_added_already_is_not_added_again(counters, store):
    counters.count(received())
    store.error = CommitUnknownError("lost")
    with pytest.raises(CommitUnknownError):
        asyncio.run(counters.flush())
    store.error = None
    assert flushed(counters, store) == {}


def test_the_last_ones_are_added_at_the_end(counters, store):
    async def story():
        running = asyncio.create_task(counters.run())
        await asyncio.sleep(0)
        counters.count(received())
        running.cancel()
        await counters.close()

    asyncio.run(story())
    assert list(store.added.values()) == [1]


def test_the_status_of_a_report():
    report = b"Status: 5.0.0\r\n\r\nText\r\n\r\nFinal-Recipient: x\r\nStatus: 5.1.1\r\n"
    assert status_of(report) == "5.1.1"
    assert status_of(b"no report") is None


def test_counting_costs_little(counters):
    import timeit

    event = received()
    assert timeit.timeit(lambda: counters.count(event), number=10_000) / 10_000 < 50e-6
