"""The event bus: bounded queues, IDs that increase, subscribers of other threads and workers."""

import asyncio
import json
import os
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sendback.service.events.bus import KEPT, EventBus
from sendback.service.events.exchange import EventExchange
from sendback.service.events.model import MAX_OCTETS, Event, EventKind, event_from_dict
from sendback.store.engine.datagrams import Datagrams

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def an_event(number: int = 0, kind: EventKind = EventKind.RECEIVED, account: str | None = None):
    return Event(kind, account, NOW, f"m{number}", {"number": number})


def numbers(events):
    return [event.fields["number"] for event in events]


def test_a_subscriber_gets_what_is_published_after_it_subscribed():
    bus = EventBus()
    bus.publish(an_event(1))
    with bus.subscribe() as subscription:
        bus.publish(an_event(2))
        bus.publish(an_event(3))
        batch = subscription.take()
    assert numbers(batch.events) == [2, 3]
    assert batch.lost == 0
    bus.publish(an_event(4))
    assert subscription.take().events == ()


def test_ids_increase_and_the_last_thousand_events_can_be_repeated():
    bus = EventBus()
    for number in range(KEPT + 500):
        bus.publish(an_event(number))
    ids = [event.id for event in bus.kept()]
    assert len(ids) == KEPT
    assert ids == sorted(set(ids))
    with bus.subscribe(after=ids[-3]) as subscription:
        assert numbers(subscription.take().events) == [KEPT + 498, KEPT + 499]


def test_a_subscriber_that_does_not_read_loses_the_oldest_events_and_is_told_how_many():
    bus = EventBus()
    with bus.subscribe() as subscription:
        for number in range(1234):
            bus.publish(an_event(number))
        batch = subscription.take()
        assert batch.lost == 234
        assert numbers(batch.events) == list(range(234, 1234))
        assert subscription.take().lost == 0


def test_kinds_and_accounts_are_filtered_and_events_of_no_account_are_for_all():
    bus = EventBus()
    with bus.subscribe([EventKind.STEP, EventKind.REFUSED], account_id="1") as subscription:
        bus.publish(an_event(1, EventKind.STEP, "1"))
        bus.publish(an_event(2, EventKind.STEP, "2"))
        bus.publish(an_event(3, EventKind.RECEIVED, "1"))
        bus.publish(an_event(4, EventKind.REFUSED, None))
        assert numbers(subscription.take().events) == [1, 4]


def test_another_thread_waits_for_events_and_is_woken_by_close():
    bus = EventBus()
    subscription = bus.subscribe()
    found: list[list[int]] = []

    def follow() -> None:
        while not subscription.is_closed:
            found.append(numbers(subscription.wait(30).events))

    thread = threading.Thread(target=follow)
    thread.start()
    bus.publish(an_event(7))
    while [7] not in found:
        pass
    subscription.close()
    thread.join(10)
    assert not thread.is_alive()


async def _next_from_a_thread() -> list[int]:
    bus = EventBus()
    with bus.subscribe() as subscription:
        threading.Timer(0.05, bus.publish, [an_event(5)]).start()
        return numbers((await subscription.next(30)).events)


def test_an_event_loop_waits_for_events_of_another_thread():
    assert asyncio.run(_next_from_a_thread()) == [5]


def test_after_close_a_subscription_ends_at_once():
    bus = EventBus()
    bus.close()
    subscription = bus.subscribe()
    assert subscription.is_closed
    assert subscription.wait(60).events == ()


def test_an_event_has_a_bound_whatever_it_describes():
    fields = {"subject": "x" * 10**6, "to": ["y" * 10**5] * 10_000}
    text = Event(EventKind.RECEIVED, "1", NOW, "m", fields).to_json()
    assert len(text) <= MAX_OCTETS
    shown = json.loads(text)
    assert len(shown["subject"]) == 500
    assert len(shown["to"]) == 50
    huge = Event(EventKind.RECEIVED, "1", NOW, "m", {f"f{n}": "€" * 500 for n in range(100)})
    assert json.loads(huge.to_json()) == {
        "id": "0",
        "kind": "received",
        "date": NOW.isoformat(),
        "account_id": "1",
        "message_id": "m",
        "is_cut": True,
    }


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"id": "x"}, {"id": 1, "kind": "received", "date": 5, "account_id": 1}, "text"],
)
def test_what_is_no_event_is_refused(value):
    with pytest.raises(ValueError, match=r"event|invalid|isoformat"):
        event_from_dict(value)


# --- several workers -------------------------------------------------------------------------


async def two_workers(folder: Path):
    """Two workers of one process; the second follows the first."""
    first, second = EventBus(), EventBus()
    channels = [Datagrams(folder, name) for name in ("first", "second")]
    for bus, channel in zip((first, second), channels, strict=True):
        channel.start()
        EventExchange(bus, channel).start()
    return first, second, channels


async def until(subscription, number: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(20):
        while number not in found:
            found += numbers((await subscription.next(5)).events)
    return found


def test_a_subscriber_of_one_worker_gets_the_events_of_the_others(tmp_path):
    async def main():
        first, second, channels = await two_workers(tmp_path)
        first.publish(an_event(1))
        with second.subscribe(after=0) as subscription:
            assert await until(subscription, 1) == [1]
            for number in range(2, 800):
                first.publish(an_event(number))
            assert await until(subscription, 799) == list(range(2, 800))
        for channel in channels:
            channel.close()

    asyncio.run(main())
    assert list((tmp_path / "sockets").iterdir()) == []


def test_without_subscribers_nothing_is_sent(tmp_path):
    async def main():
        first, second, channels = await two_workers(tmp_path)
        first.publish(an_event(1))
        await asyncio.sleep(0.05)
        assert second.kept() == ()
        for channel in channels:
            channel.close()

    asyncio.run(main())


def test_datagrams_from_others_are_ignored_and_sockets_of_dead_workers_deleted(tmp_path):
    (tmp_path / "sockets").mkdir()
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(tmp_path / "sockets/dead.sock"))
    dead.close()

    async def main():
        bus = EventBus()
        channel = Datagrams(tmp_path, "mine")
        channel.start()
        EventExchange(bus, channel).start()
        (mine,) = (tmp_path / "sockets").iterdir()
        assert mine.stat().st_mode & 0o077 == 0
        other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        other.setblocking(False)
        hostile = [
            b"",
            b"\xff\xfe",
            b"other listen " + b"[" * 30_000,
            b'../../etc/passwd listen {"after": 0, "now": 0}',
            b'other listen {"after": {"a": 1}}',
            b'other listen {"after": 1e999, "now": 1e999}',
            b'other event {"id": "1e999", "kind": "received"}',
            b'other command {"id": 1e999, "kind": "received", "date": "2026-01-01", '
            b'"account_id": null, "message_id": null}',
            b"other wake everything",
            b"other \xff\xfe",
            os.urandom(33_000),
            os.urandom(36_000),
        ]
        for message in hostile:
            other.sendto(message, str(mine))
            await asyncio.sleep(0.01)
        with bus.subscribe() as subscription:
            bus.publish(an_event(3))
            assert numbers(subscription.take().events) == [3]
        assert len(bus.kept()) == 1
        other.close()
        channel.close()

    asyncio.run(main())
    assert list((tmp_path / "sockets").iterdir()) == []


def test_a_data_directory_with_a_long_path(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()

    async def main():
        first, second, channels = await two_workers(folder)
        with second.subscribe(after=0) as subscription:
            first.publish(an_event(1))
            assert await until(subscription, 1) == [1]
        for channel in channels:
            channel.close()

    asyncio.run(main())
