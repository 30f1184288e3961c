"""Received messages and their envelopes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.envelopes import envelope_from_json, envelope_to_json
from sendback.store.processing import add_processing, is_being_processed
from sendback.store.tables import messages
from sendback.store.transactions import BatchUnit
from sendback.store.values import Body, Processing, ReceivedMessage

_WITHOUT_BODY = (
    messages.c.message_id,
    messages.c.account_id,
    messages.c.received_at,
    messages.c.expires_at,
    messages.c.envelope,
    messages.c.size,
    messages.c.header,
)
_FIND = select(*_WITHOUT_BODY).where(messages.c.message_id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class AddMessages(BatchUnit[None]):
    """Adds one received message, once for each account that it is for.

    `processing` has those accounts' work for their rules, with who holds its lease, if anybody.
    """

    messages: tuple[ReceivedMessage, ...]
    body: Body
    processing: tuple[tuple[Processing, str | None], ...] = ()

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[None]:
        rows = [_to_row(message, unit.body) for unit in units for message in unit.messages]
        connection.execute(insert(messages), rows)
        add_processing(connection, [entry for unit in units for entry in unit.processing])
        return [None] * len(units)


@dataclass(frozen=True, slots=True)
class FindMessage:
    """The message as this account sees it, or None."""

    account_id: str
    message_id: str

    def __call__(self, connection: Connection, /) -> ReceivedMessage | None:
        key = (self.account_id, self.message_id)
        return find_messages(connection, [key]).get(key)


@dataclass(frozen=True, slots=True)
class FindBody:
    """Where the message's body is; None when there is no such message or it has expired."""

    account_id: str
    message_id: str

    def __call__(self, connection: Connection, /) -> Body | None:
        query = select(messages.c.body, messages.c.blob).where(
            messages.c.message_id == self.message_id, messages.c.account_id == self.account_id
        )
        row = connection.execute(query).first()
        if row is None or (row.body is None and row.blob is None):
            return None
        return Body(row.body, row.blob)


@dataclass(frozen=True, slots=True)
class ListMessages:
    """The account's newest messages first."""

    account_id: str
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[ReceivedMessage]:
        query = (
            select(*_WITHOUT_BODY)
            .where(messages.c.account_id == self.account_id)
            .order_by(messages.c.message_id.desc())
            .limit(self.limit)
        )
        return [_from_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class ExpireMessages:
    """Takes the content of expired messages and the record of old ones; answers their blobs.

    The record outlives the content, so that a late SendBounce can say when its window closed.
    """

    now: datetime
    forget_before: datetime

    def __call__(self, connection: Connection, /) -> Sequence[str]:
        # What rules still work on is kept for them, however short the retention.
        expired = (messages.c.expires_at <= to_milliseconds(self.now)) & ~is_being_processed(
            messages.c.message_id, messages.c.account_id
        )
        held = messages.c.body.is_not(None) | messages.c.blob.is_not(None)
        query = select(messages.c.blob).where(expired, messages.c.blob.is_not(None)).distinct()
        blobs = list(connection.execute(query).scalars())
        nothing = {"body": None, "blob": None, "header": b""}
        connection.execute(update(messages).where(expired, held).values(nothing))
        old = messages.c.received_at < to_milliseconds(self.forget_before)
        connection.execute(delete(messages).where(expired, old))
        return [name for name in blobs if name is not None]


@dataclass(frozen=True, slots=True)
class BlobsInUse:
    """Those of the names that a message still refers to."""

    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> frozenset[str]:
        query = select(messages.c.blob).where(messages.c.blob.in_(self.names))
        return frozenset(name for name in connection.execute(query).scalars() if name)


def find_messages(
    connection: Connection, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], ReceivedMessage]:
    """By (account ID, message ID), for units of other modules."""
    ids = [message_id for _, message_id in keys]
    found = (_from_row(row) for row in connection.execute(_FIND, {"ids": ids}))
    by_key = {(message.account_id, message.message_id): message for message in found}
    return {key: by_key[key] for key in keys if key in by_key}


def _to_row(message: ReceivedMessage, body: Body) -> dict[str, object]:
    return {
        "message_id": message.message_id,
        "account_id": message.account_id,
        "received_at": to_milliseconds(message.received_at),
        "expires_at": to_milliseconds(message.expires_at),
        "envelope": envelope_to_json(message.envelope),
        "size": message.size,
        "header": message.header,
        "body": body.inline,
        "blob": body.blob,
    }


def _from_row(row: Any) -> ReceivedMessage:
    return ReceivedMessage(
        message_id=row.message_id,
        account_id=row.account_id,
        received_at=from_milliseconds(row.received_at),
        expires_at=from_milliseconds(row.expires_at),
        envelope=envelope_from_json(row.envelope),
        size=row.size,
        header=row.header,
    )
