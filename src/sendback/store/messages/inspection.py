"""Received messages as tests inspect and delete them, in order of receipt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select

from sendback.store.engine.tables import messages, processing
from sendback.store.messages.messages import (
    IS_PROCESSING,
    WITHOUT_BODY,
    ReceivedMessage,
    lock_blobs,
    message_from_row,
    unused_blobs,
    without_requeued,
)
from sendback.store.rules.processing import ProcessingState, key_of

_CHUNK = 200


@dataclass(frozen=True, slots=True)
class ScanMessages:
    """Return the next of an account's messages behind the ID `after`, the oldest first.

    Each with the state of its processing, or None. At most `limit`.
    """

    account_id: str
    after: str
    limit: int

    def __call__(
        self, connection: Connection, /
    ) -> Sequence[tuple[ReceivedMessage, ProcessingState | None]]:
        query = (
            select(*WITHOUT_BODY, processing.c.state)
            .outerjoin(processing, IS_PROCESSING)
            .where(messages.c.account_id == self.account_id, messages.c.message_id > self.after)
            .order_by(messages.c.message_id)
            .limit(self.limit)
        )
        return [
            (message_from_row(row), ProcessingState(row.state) if row.state else None)
            for row in connection.execute(query)
        ]


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many messages were deleted, how many are kept as their rules are not finished.

    `after` is the ID behind which the next step begins, None at the end; `blobs` are names that no
    row has any more.
    """

    count: int
    kept: int
    after: str | None
    blobs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteMessages:
    """Delete an account's messages with the record of their processing, some hundred a step.

    With `message_id`, only that one. A message whose processing is queued is kept: a worker may
    have it. Bounces of deleted messages stay in the outbox, which does not need them.
    """

    account_id: str
    after: str = ""
    message_id: str | None = None

    def __call__(self, connection: Connection, /) -> Deleted:
        rows = connection.execute(self._query()).all()
        ended = [row for row in rows if row.state != ProcessingState.QUEUED.value]
        done = without_requeued(connection, ended)
        ids = [row.message_id for row in done]
        named = lock_blobs(connection, [row.blob for row in done if row.blob])
        if ids:
            mine = messages.c.account_id == self.account_id
            connection.execute(delete(messages).where(mine, messages.c.message_id.in_(ids)))
            owned = processing.c.account_id == self.account_id
            connection.execute(delete(processing).where(owned, processing.c.message_id.in_(ids)))
        blobs = unused_blobs(connection, named)
        after = rows[-1].message_id if len(rows) == _CHUNK else None
        return Deleted(len(done), len(rows) - len(done), after, blobs)

    def _query(self) -> Any:
        query = (
            select(
                messages.c.message_id, messages.c.account_id, messages.c.blob, processing.c.state
            )
            .outerjoin(
                processing,
                processing.c.processing_id == key_of(messages.c.message_id, messages.c.account_id),
            )
            .where(messages.c.account_id == self.account_id, messages.c.message_id > self.after)
            .order_by(messages.c.message_id)
            .limit(_CHUNK)
        )
        if self.message_id is not None:
            query = query.where(messages.c.message_id == self.message_id)
        return query
