"""The rows of the outbox, and the messages that they hold."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, bindparam, select

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.mail.address import Address, parse_address
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.leasing import LeaseQueue
from sendback.store.engine.tables import outbox, outbox_contents


class OutboxState(StrEnum):
    """The state of an outgoing message."""

    QUEUED = "queued"
    HELD = "held"
    DELIVERED = "delivered"
    CAPTURED = "captured"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A bounce or a verification mail, in any state. `due_at` is when it is tried next.

    `fallback` is the same bounce for a peer that does not take 8-bit content, where it differs.
    `sender` is the address in `From:`; `sender_account_id` is the account of that identity if it is
    another one.
    """

    message_id: str
    account_id: str
    original_message_id: str
    recipient: Address
    content: bytes
    created_at: datetime
    expires_at: datetime
    state: OutboxState = OutboxState.QUEUED
    due_at: datetime | None = None
    attempts: int = 0
    last_reply: str | None = None
    fallback: bytes | None = None
    sender: str | None = None
    sender_account_id: str | None = None

    @property
    def domain(self) -> str:
        """The name of its destination: the recipient's domain in A-labels and lower case."""
        return self.recipient.ascii_domain


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's time-limited claim on an outbox row; the token fences off a late worker.

    `failures` is how many times in a row its destination had failed: if any, this is a probe.
    `tries` is the number of leases since a result was recorded, this one included.
    """

    message: OutboxMessage
    token: int
    failures: int = 0
    tries: int = 1


class Outcome(StrEnum):
    """The result of one delivery attempt."""

    DELIVERED = "delivered"
    CAPTURED = "captured"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A delivery attempt: the peer `host[address]:port`, the TLS version if any, and its reply.

    `tls_policy` is the TLS that was required: `opportunistic`, `dane`, ….
    """

    started_at: datetime
    milliseconds: int
    outcome: Outcome
    peer: str
    tls: str | None
    reply: str
    tls_policy: str | None = None


QUEUE = LeaseQueue(outbox, outbox.c.message_id, outbox.c.last_reply)
IS_QUEUED = QUEUE.is_queued
# Rows that are leased together with others: no suspects (`leasing`).
IS_TRUSTED = QUEUE.is_trusted

# The query for rows with their contents.
WHOLE = select(outbox, outbox_contents.c.content, outbox_contents.c.fallback).join(
    outbox_contents, outbox_contents.c.message_id == outbox.c.message_id
)
_FIND_WHOLE = HotStatement(WHOLE.where(outbox.c.message_id.in_(bindparam("ids", expanding=True))))


def to_row(message: OutboxMessage) -> dict[str, object]:
    """Return the message's row of `outbox`."""
    return {
        "message_id": message.message_id,
        "account_id": message.account_id,
        "original_message_id": message.original_message_id,
        "recipient": str(message.recipient),
        "created_at": to_milliseconds(message.created_at),
        "expires_at": to_milliseconds(message.expires_at),
        "state": message.state.value,
        "due_at": to_milliseconds(message.due_at or message.created_at),
        "lease_token": 0,
        "attempts": 0,
        "domain": message.domain,
        "sender": message.sender,
        "sender_account_id": message.sender_account_id,
    }


def to_content_row(message: OutboxMessage) -> dict[str, object]:
    """Return the message's row of `outbox_contents`."""
    return {
        "message_id": message.message_id,
        "content": message.content,
        "fallback": message.fallback,
    }


def find_whole(connection: Connection, message_ids: Collection[str]) -> dict[str, Any]:
    """Return rows with their contents, by message ID."""
    rows = _FIND_WHOLE.rows(connection, {"ids": list(message_ids)})
    return {row.message_id: row for row in rows}


def from_row(row: Any) -> OutboxMessage:
    """Return the message of a row with its contents. Raise `AddressError`, `ValueError`."""
    return OutboxMessage(
        message_id=row.message_id,
        account_id=row.account_id,
        original_message_id=row.original_message_id,
        recipient=parse_address(row.recipient, any_dots=True),
        content=row.content,
        created_at=from_milliseconds(row.created_at),
        expires_at=from_milliseconds(row.expires_at),
        state=OutboxState(row.state),
        due_at=from_milliseconds(row.due_at),
        attempts=row.attempts,
        last_reply=row.last_reply,
        fallback=row.fallback,
        sender=row.sender,
        sender_account_id=row.sender_account_id,
    )
