"""How much mail waits: for a page that is shown every few seconds, so the rows read are bounded."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select, text

from sendback.clock import from_milliseconds
from sendback.store.engine.tables import HELD, outbox

# Rows that are counted at most: reading them takes some 10 ms.
COUNTED = 10_000
# In the text of the partial indexes, without which SQLite does not use them.
_IS_QUEUED, _IS_HELD = text("state = 'queued'"), text(HELD)


@dataclass(frozen=True, slots=True)
class Queue:
    """The number of queued and of held messages, and when the oldest queued one was queued.

    `is_cut`: more than `COUNTED` are queued, of all accounts, and only so many were counted.
    """

    queued: int
    oldest: datetime | None
    held: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class ReadQueue:
    """Return how much mail of an account waits, or of all (None)."""

    account_id: str | None

    def __call__(self, connection: Connection, /) -> Queue:
        # By the partial index outbox_by_expiry: what was queued first expires first.
        first = (
            select(outbox.c.account_id, outbox.c.created_at)
            .where(_IS_QUEUED)
            .order_by(outbox.c.expires_at)
            .limit(COUNTED)
            .subquery()
        )
        held = select(outbox.c.account_id).where(_IS_HELD).limit(COUNTED)
        own = select(func.count(), func.min(first.c.created_at))
        if self.account_id is not None:
            own = own.where(first.c.account_id == self.account_id)
            held = held.where(outbox.c.account_id == self.account_id)
        queued, oldest = connection.execute(own).one()
        all_queued = connection.execute(select(func.count()).select_from(first)).scalar_one()
        all_held = connection.execute(select(func.count()).select_from(held.subquery()))
        return Queue(
            queued,
            None if oldest is None else from_milliseconds(oldest),
            all_held.scalar_one(),
            all_queued >= COUNTED,
        )
