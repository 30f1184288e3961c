"""What a message costs the queue (queued, leased, its attempt recorded) while others wait.

The others wait in their hundreds of thousands for a domain that does not answer and for a thousand
domains whose messages are due later.
"""

import asyncio
import itertools
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.partners.queue import ACCOUNT, a_bounce

from bench.common import folder
from sendback.ids import RandomIds
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.leasing import Term
from sendback.store.engine.store import Store, prepare_schema
from sendback.store.outbox.destinations import Block
from sendback.store.outbox.queue import RecordAttempt, TakeLeases, add_to_outbox
from sendback.store.outbox.rows import Attempt, Lease, OutboxMessage, OutboxState, Outcome

SIZES = (1_000, 10_000, 100_000, 1_000_000)
MEASURED = 5_000
_STEP = 100
_CHUNK = 5_000
_NOW = datetime(2026, 3, 1, tzinfo=UTC)


def main() -> None:
    print(f"The queue's cost of a message, over {MEASURED:,} messages, while others wait")
    with tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as name:
        costs = asyncio.run(_all(Path(name)))
    most = max(costs.values())
    for size, cost in costs.items():
        print(f"  {size:>9,} waiting  {cost:7.1f} µs  {'#' * round(40 * cost / most)}")
    print(f"  ratio of the largest queue to the smallest: {costs[SIZES[-1]] / costs[SIZES[0]]:.2f}")


async def _all(place: Path) -> dict[int, float]:
    url = f"sqlite:///{place / 'sendback.db'}"
    prepare_schema(url)
    store = Store(url, place)
    await store.write(AddAccount(ACCOUNT, _NOW))
    costs, waiting = {}, 0
    for size in SIZES:
        await _add_waiting(store, size - waiting)
        waiting = size
        await _measure(store)  # the first time warms up
        costs[size] = await _measure(store)
    store.close()
    return costs


async def _add_waiting(store: Store, number: int) -> None:
    """Half of them due, for a domain that is blocked; half due in an hour, for many domains."""
    half = number // 2
    await _add(store, ["ann@dead.example"] * half, _NOW)
    await _add(store, [f"ann@d{n % 1000}.example" for n in range(half)], _NOW + timedelta(hours=1))
    for lease in await _take(store, 1):  # the first time: after that it is blocked
        await store.write(_record(lease, OutboxState.QUEUED, _NOW + timedelta(hours=2)))


async def _measure(store: Store) -> float:
    """Microseconds a message."""
    start = time.perf_counter()
    await _add(store, ["ann@good.example"] * MEASURED, _NOW, chunk=_STEP)
    done = 0
    while leases := await _take(store, _STEP):
        await asyncio.gather(
            *(store.write(_record(lease, OutboxState.DELIVERED, None)) for lease in leases)
        )
        done += len(leases)
    if done != MEASURED:
        raise SystemExit(f"{done} messages were due, not {MEASURED}")
    return (time.perf_counter() - start) / MEASURED * 1e6


# IDs begin with the time, and messages come one after the other: a tenth of a millisecond apart.
_moments = (_NOW + timedelta(microseconds=100 * number) for number in itertools.count())


async def _add(store: Store, recipients: list[str], due_at: datetime, chunk: int = _CHUNK) -> None:
    ids = RandomIds()
    for start in range(0, len(recipients), chunk):
        messages = [
            a_bounce(
                ids.outbound_message(next(_moments)),
                recipient,
                _NOW,
                content=b"x" * 200,
                due_at=due_at,
            )
            for recipient in recipients[start : start + chunk]
        ]

        def add(connection: Any, rows: list[OutboxMessage] = messages) -> None:
            add_to_outbox(connection, rows)

        await store.write(add)


async def _take(store: Store, limit: int) -> list[Lease]:
    term = Term("bench", _NOW, _NOW + timedelta(seconds=30))
    return list(await store.write(TakeLeases(term, limit, room=limit, probes=10, rooms={})))


def _record(lease: Lease, state: OutboxState, blocked_until: datetime | None) -> RecordAttempt:
    outcome = Outcome.DELIVERED if state is OutboxState.DELIVERED else Outcome.TEMPORARY
    attempt = Attempt(_NOW, 1, outcome, "peer", None, "250 2.0.0 Ok")
    block = Block(1, blocked_until, "no answer") if blocked_until else None
    return RecordAttempt(lease, attempt, state, blocked_until or _NOW, block)


if __name__ == "__main__":
    main()
