"""How long others wait for the database while 200,000 old rows are swept.

One process sweeps; another writes a row every 20 ms, as one that receives mail does, and notes how
long each write took.
"""

import asyncio
import multiprocessing
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.partners.queue import ACCOUNT, a_bounce

from bench.common import folder
from sendback.clock import SystemClock
from sendback.service.housekeeping import Housekeeping
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.store import Store, prepare_schema
from sendback.store.outbox.queue import add_to_outbox

ROWS = 200_000
_CHUNK = 5_000
_EVERY_SECONDS = 0.02


def main() -> None:
    print(f"Sweeping {ROWS:,} finished bounces with their contents while another process writes")
    with tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as name:
        place = Path(name)
        asyncio.run(_fill(place))
        context = multiprocessing.get_context("spawn")
        stop, waits = context.Event(), context.Queue()
        writer = context.Process(target=_write, args=(place, stop, waits))
        writer.start()
        time.sleep(3)
        took = asyncio.run(_sweep(place))
        stop.set()
        found = sorted(waits.get(timeout=60))
        writer.join()
    print(f"  the sweep took                      {took:8.1f} s")
    for label, share in (("median", 0.5), ("99th percentile", 0.99), ("longest", 1.0)):
        wait = found[min(int(len(found) * share), len(found) - 1)]
        print(f"  a write of another process, {label:16} {wait * 1000:8.1f} ms")


async def _fill(place: Path) -> None:
    store = _open(place)
    old = datetime.now(UTC) - timedelta(days=20)
    await store.write(AddAccount(ACCOUNT, old))
    for start in range(0, ROWS, _CHUNK):
        rows = [
            a_bounce(f"{n:08}", f"a@d{n % 100}.example", old, content=b"x" * 2000)
            for n in range(start, start + _CHUNK)
        ]

        def add(connection: Any, rows: Any = rows) -> None:
            add_to_outbox(connection, rows)
            connection.exec_driver_sql("UPDATE outbox SET state = 'delivered' WHERE state='queued'")

        await store.write(add)
    store.close()


async def _sweep(place: Path) -> float:
    store = _open(place)
    start = time.perf_counter()
    await _housekeeping(store).sweep()
    took = time.perf_counter() - start
    left = await store.read(lambda c: c.exec_driver_sql("SELECT count(*) FROM outbox").scalar())
    store.close()
    if left:
        raise SystemExit(f"{left} rows are left")
    return took


def _housekeeping(store: Store) -> Housekeeping:
    return Housekeeping(store, SystemClock(), timedelta(days=14), owner="bench")


def _write(place: Path, stop: Any, waits: Any) -> None:
    asyncio.run(_write_often(place, stop, waits))


async def _write_often(place: Path, stop: Any, waits: Any) -> None:
    store = _open(place)
    found: list[float] = []
    while not stop.is_set():
        start = time.perf_counter()
        await store.write(AddAccount(f"{len(found):012}", datetime.now(UTC)))
        found.append(time.perf_counter() - start)
        await asyncio.sleep(_EVERY_SECONDS)
    store.close()
    waits.put(found)


def _open(place: Path) -> Store:
    url = f"sqlite:///{place / 'sendback.db'}"
    prepare_schema(url)
    return Store(url, place)


if __name__ == "__main__":
    main()
