"""Draining a queue of 5 KB bounces into smtp-sink, in messages a second; Postfix beside it.

Both begin with the whole queue on disk and a sink that takes everything. Sendback starts with its
queue; Postfix holds its own back until it is told to flush.
"""

import subprocess
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.partners.postfix import Postfix
from tests.partners.sendback import Sendback

from bench.common import count, folder, row, sink, smtp_source
from sendback.ids import RandomIds
from sendback.store.accounts import AddAccount
from sendback.store.outbox import add_to_outbox
from sendback.store.store import Store, prepare_schema
from sendback.store.values import OutboxMessage

MESSAGES = 3000
ROUNDS = 3
ACCOUNT = "000000000000"
_CONTENT = b"From: mailer-daemon@example.com\r\nSubject: x\r\n\r\n" + (b"x" * 78 + b"\r\n") * 62


def main() -> None:
    print(f"Draining {MESSAGES} queued bounces of 5 KB into smtp-sink")
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(ROUNDS):
        with sink() as port:
            ours.append(_sendback(port))
        with sink() as port:
            theirs.append(_postfix(port))
    middle, other = row("Sendback", ours, "messages/s"), row("Postfix", theirs, "messages/s")
    print(f"  ratio Sendback / Postfix: {middle / other:.2f}")


def fill(data_dir: Path, recipients: list[str]) -> None:
    """Queues a bounce for each, as SendBounce would have."""
    import asyncio  # noqa: PLC0415

    data_dir.mkdir(exist_ok=True)
    url = f"sqlite:///{data_dir / 'sendback.db'}"
    prepare_schema(url)
    now, ids = datetime.now(UTC), RandomIds()

    async def work() -> None:
        store = Store(url, data_dir)
        await store.write(AddAccount(ACCOUNT, now))
        for start in range(0, len(recipients), 1000):
            messages = [
                OutboxMessage(
                    message_id=ids.outbound_message(now),
                    account_id=ACCOUNT,
                    original_message_id="x",
                    recipient=recipient,
                    content=_CONTENT,
                    created_at=now,
                    expires_at=now + timedelta(days=5),
                )
                for recipient in recipients[start : start + 1000]
            ]
            await store.write(lambda connection, rows=messages: add_to_outbox(connection, rows))
        store.close()

    asyncio.run(work())


def _sendback(port: int) -> float:
    with tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as name:
        place = Path(name)
        fill(place / "data", ["ann@sender.example"] * MESSAGES)
        flags = ("--outbound", f"smtp://127.0.0.1:{port}")
        with Sendback(place, flags, {"SENDBACK_LOG_LEVEL": "warning"}) as server:
            start = time.perf_counter()
            already = count(server.data_dir, "delivered")
            while count(server.data_dir, "delivered") < MESSAGES:
                time.sleep(0.01)
            return (MESSAGES - already) / (time.perf_counter() - start)


def _postfix(port: int) -> float:
    extra = f"relayhost = [127.0.0.1]:{port}\ndefer_transports = smtp relay"
    with Postfix(extra.replace("relay_domains", "#")) as server:
        server.change("transport_maps", "")
        server.change("relay_domains", "sender.example")
        smtp_source(server.port, MESSAGES, to="ann@sender.example")
        while server.log.count("status=deferred") < MESSAGES:
            time.sleep(0.1)
        server.change("defer_transports", "")
        time.sleep(1)
        start = time.perf_counter()
        subprocess.run(["postqueue", "-c", server.folder / "etc", "-f"], check=True)
        while server.log.count("status=sent") < MESSAGES:
            time.sleep(0.01)
        return MESSAGES / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
