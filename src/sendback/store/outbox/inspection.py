"""Outgoing mail as tests inspect it, in the order in which it was queued."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from sendback.store.engine.locking import lock_free
from sendback.store.engine.tables import outbox
from sendback.store.outbox.control import Selection
from sendback.store.outbox.destinations import touch
from sendback.store.outbox.rows import WHOLE, OutboxMessage, OutboxState, from_row

_CHUNK = 200


@dataclass(frozen=True, slots=True)
class ScanOutbox:
    """Return the next selected messages behind the ID `after`, the oldest first.

    With `only_bounces`, without the mails that belong to no received message.
    """

    selection: Selection
    after: str
    limit: int
    only_bounces: bool

    def __call__(self, connection: Connection, /) -> Sequence[OutboxMessage]:
        query = WHOLE.where(*self.selection.where(), outbox.c.message_id > self.after)
        if self.only_bounces:
            query = query.where(outbox.c.original_message_id != "")
        query = query.order_by(outbox.c.message_id).limit(self.limit)
        return [from_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class DeleteOutgoing:
    """Delete outgoing mail that is not queued, some hundred a step; return how many.

    A queued message is kept: a worker may be delivering it. Call it until it returns 0.
    """

    account_id: str
    message_id: str | None = None

    def __call__(self, connection: Connection, /) -> int:
        query = (
            select(outbox.c.message_id, outbox.c.domain)
            .where(
                outbox.c.account_id == self.account_id,
                outbox.c.state != OutboxState.QUEUED.value,
            )
            .limit(_CHUNK)
        )
        if self.message_id is not None:
            query = query.where(outbox.c.message_id == self.message_id)
        rows = connection.execute(query).all()
        ids = [row.message_id for row in rows]
        if ids:
            # An operator may be retrying one.
            is_finished = outbox.c.state != OutboxState.QUEUED.value
            free = lock_free(connection, outbox.c.message_id, ids, is_finished)
            connection.execute(delete(outbox).where(outbox.c.message_id.in_(free)))
            touch(connection, {row.domain for row in rows})
        return len(ids)
