"""Filling an outbox directly, as SendBounce would have."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from sendback.ids import RandomIds
from sendback.mail.address import parse_address
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.errors import LeaseLostError
from sendback.store.engine.store import Store, prepare_schema
from sendback.store.outbox.queue import RecordAttempt, add_to_outbox
from sendback.store.outbox.rows import OutboxMessage
from sendback.store.rules.processing import RecordProgress
from tests.partners.postgresql import database_url

ACCOUNT = "000000000000"
_CONTENT = b"From: mailer-daemon@example.com\r\nSubject: x\r\n\r\n" + (b"x" * 78 + b"\r\n") * 62
_CHUNK = 1000


def is_recorded(unit: RecordAttempt | RecordProgress, connection: Connection) -> bool:
    """Run the unit; return False when its lease was lost."""
    try:
        unit(connection)
    except LeaseLostError:
        return False
    return True


def a_bounce(message_id: str, recipient: str, now: datetime, **changes: Any) -> OutboxMessage:
    """As SendBounce would queue it then; it has five days."""
    values = {
        "account_id": ACCOUNT,
        "original_message_id": "o1",
        "content": b"x",
        "created_at": now,
        "expires_at": now + timedelta(days=5),
        **changes,
    }
    return OutboxMessage(
        message_id=message_id, recipient=parse_address(recipient, any_dots=True), **values
    )


def fill(data_dir: Path, recipients: Sequence[str], sender: str | None = None) -> None:
    """Queues a bounce of 5 KB for each, in the store of the data directory."""
    data_dir.mkdir(exist_ok=True)
    url = database_url(data_dir)
    prepare_schema(url)
    asyncio.run(_fill(Store(url, data_dir), recipients, sender))


async def _fill(store: Store, recipients: Sequence[str], sender: str | None) -> None:
    now, ids = datetime.now(UTC), RandomIds()
    await store.write(AddAccount(ACCOUNT, now))
    for start in range(0, len(recipients), _CHUNK):
        messages = [
            a_bounce(ids.outbound_message(now), recipient, now, content=_CONTENT, sender=sender)
            for recipient in recipients[start : start + _CHUNK]
        ]

        def add(connection: Any, rows: Sequence[OutboxMessage] = messages) -> None:
            add_to_outbox(connection, rows)

        await store.write(add)
    store.close()
