"""What a mail costs while many are stored: 1 thousand, 100 thousand and 1 million, both databases.

The stored messages, with processing that is done and a bounce that is delivered for each, are
inserted in bulk: generating a million by SMTP would take an hour. Their IDs begin with their time,
as all IDs do. Then mails are received, and SendBounce's units of work are run one by one.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from sqlalchemy import create_engine, insert
from tests.partners.sendback import run_cli

from bench.common import smtp_source
from bench.results import record
from bench.servers import Measured, Servers, measuring, scaled
from sendback.ids import RandomIds
from sendback.mail.address import parse_address
from sendback.store.bouncing.bounces import FindForBounce, QueueBounce
from sendback.store.bouncing.calls import CallKey
from sendback.store.engine.store import Store
from sendback.store.engine.tables import messages, outbox, outbox_contents, processing
from sendback.store.outbox.rows import OutboxMessage

SIZES = tuple(int(size) for size in os.environ.get("BENCH_SIZES", "1000,100000,1000000").split(","))
MAILS = 1500
CALLS = 400
_CHUNK = 10_000
_ACCOUNT = "000000000000"
_BODY = b"x" * 1000
_NOW = datetime.now(UTC)
_ENVELOPE = (
    '{"client":["127.0.0.1","x",null],"from":["ann","sender.example"],'
    '"to":[{"at":["bob","example.com"]}]}'
)


def main() -> None:
    print("Growth: a received mail, a SendBounce (its two units, in ms), the lists of the CLI")
    figures: dict[str, Any] = {}
    with Servers() as servers:
        for server in (servers.sqlite(), servers.postgresql()):
            stored, found = 0, figures.setdefault(server.name, {})
            for size in SIZES:
                fill(server, stored, size)
                stored = size
                found[str(size)] = _measure(server, size)
                print(f"    {server.name:24} {size:>9,} stored  {_text(found[str(size)])}")
    record("growth", figures)


def _text(found: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:,.1f}" for name, value in found.items())


def fill(server: Measured, stored: int, size: int) -> None:
    engine = create_engine(_url(server).replace("postgresql:", "postgresql+psycopg:"))
    ids = RandomIds()
    for start in range(stored, size, _CHUNK):
        rows = list(_rows(ids, range(start, min(start + _CHUNK, size))))
        with engine.begin() as connection:
            for number, table in enumerate((messages, processing, outbox, outbox_contents)):
                connection.execute(insert(table), [row[number] for row in rows])
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    engine.dispose()


def _rows(ids: RandomIds, numbers: range) -> Iterator[tuple[dict[str, Any], ...]]:
    for number in numbers:
        moment = _NOW - timedelta(days=10) + timedelta(milliseconds=100 * number)
        at, message_id, bounce_id = (
            int(moment.timestamp() * 1000),
            ids.received_message(moment),
            ids.outbound_message(moment),
        )
        yield (
            {
                "message_id": message_id, "account_id": _ACCOUNT, "received_at": at,
                "expires_at": at + 30 * 86_400_000, "envelope": _ENVELOPE, "size": 1400,
                "header": b"h" * 400, "body": _BODY,
            },
            {
                "processing_id": f"{message_id}/{_ACCOUNT}", "message_id": message_id,
                "account_id": _ACCOUNT, "version": "v", "rule_set": "main", "created_at": at,
                "state": "done", "due_at": at, "lease_token": 1, "tries": 0,
            },
            {
                "message_id": bounce_id, "account_id": _ACCOUNT, "original_message_id": message_id,
                "recipient": "ann@sender.example", "created_at": at,
                "expires_at": at + 4 * 86_400_000, "state": "delivered", "due_at": at,
                "lease_token": 1, "attempts": 1, "domain": "sender.example", "tries": 0,
            },
            {"message_id": bounce_id, "content": _BODY},
        )  # fmt: skip


def _measure(server: Measured, size: int) -> dict[str, float]:
    smtp_source(server.port, scaled(300), to=server.recipient)
    for _ in range(3):
        with measuring(server, size, scaled(MAILS)):
            smtp_source(server.port, scaled(MAILS), to=server.recipient)
    read, written = asyncio.run(_bounces(_url(server)))
    found = {
        "mails/s": median(server.rates[size]),
        "CPU us": median(server.costs[size]),
        "find p99": quantiles(read, n=100)[98],
        "queue p99": quantiles(written, n=100)[98],
    }
    for kind in ("messages", "outbox"):
        found[f"{kind} list"] = _list(server, kind)
    return found


async def _bounces(url: str) -> tuple[list[float], list[float]]:
    """Milliseconds of each read and each write of a SendBounce, one after the other."""
    store = Store(url, Path(url.rpartition("///")[2]).parent if "sqlite" in url else Path("/tmp"))
    ids, read, written = RandomIds(), [], []
    for number in range(scaled(CALLS)):
        moment = datetime.now(UTC)
        call = CallKey("key", f"{moment.timestamp()}-{number}", "hash")
        keys = ((_ACCOUNT, "example.com"), (_ACCOUNT, "m@example.com"))
        start = time.perf_counter()
        await store.read(FindForBounce(ids.received_message(moment), (_ACCOUNT,), keys, call))
        middle = time.perf_counter()
        await store.write(QueueBounce(_bounce(ids, moment), call, None))
        written.append((time.perf_counter() - middle) * 1000)
        read.append((middle - start) * 1000)
    store.close()
    return read, written


def _bounce(ids: RandomIds, moment: datetime) -> OutboxMessage:
    return OutboxMessage(
        ids.outbound_message(moment), _ACCOUNT, "original", parse_address("ann@sender.example"),
        _BODY, moment, moment + timedelta(days=4),
    )  # fmt: skip


def _list(server: Measured, kind: str) -> float:
    """Milliseconds of the command, with its start-up; the shortest of three."""
    place = server.sendback.data_dir if server.sendback else Path()
    environment = server.sendback.environment if server.sendback else {}
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run_cli(kind, "list", "--data-dir", str(place), environment=environment)
        times.append((time.perf_counter() - start) * 1000)
    return min(times)


def _url(server: Measured) -> str:
    return server.sendback.environment["SENDBACK_DATABASE"] if server.sendback else ""


if __name__ == "__main__":
    main()
