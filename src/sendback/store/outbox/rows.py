"""Rows of the outbox, and the messages that they are."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, select

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.mail.address import AddressError, parse_address
from sendback.store.engine.leasing import LeaseQueue
from sendback.store.engine.tables import outbox, outbox_contents
from sendback.store.values import OutboxMessage, OutboxState

QUEUE = LeaseQueue(outbox, outbox.c.message_id, outbox.c.last_reply)
IS_QUEUED = QUEUE.is_queued
# What is taken together with others: no suspects (`leasing`).
IS_TRUSTED = QUEUE.is_trusted

# Rows with their contents.
WHOLE = select(outbox, outbox_contents.c.content, outbox_contents.c.fallback).join(
    outbox_contents, outbox_contents.c.message_id == outbox.c.message_id
)


def destination_of(recipient: str) -> str:
    """The recipient's domain in canonical form; empty when it is no address."""
    try:
        return parse_address(recipient, any_dots=True).ascii_domain
    except AddressError:
        return ""


def to_row(message: OutboxMessage) -> dict[str, object]:
    """For `outbox`."""
    return {
        "message_id": message.message_id,
        "account_id": message.account_id,
        "original_message_id": message.original_message_id,
        "recipient": message.recipient,
        "created_at": to_milliseconds(message.created_at),
        "expires_at": to_milliseconds(message.expires_at),
        "state": message.state.value,
        "due_at": to_milliseconds(message.due_at or message.created_at),
        "lease_token": 0,
        "attempts": 0,
        "domain": destination_of(message.recipient),
        "sender": message.sender,
        "sender_account_id": message.sender_account_id,
    }


def to_content_row(message: OutboxMessage) -> dict[str, object]:
    """For `outbox_contents`."""
    return {
        "message_id": message.message_id,
        "content": message.content,
        "fallback": message.fallback,
    }


def find_whole(connection: Connection, message_ids: Collection[str]) -> dict[str, Any]:
    """Rows with their contents, by message ID."""
    query = WHOLE.where(outbox.c.message_id.in_(message_ids))
    return {row.message_id: row for row in connection.execute(query)}


def from_row(row: Any) -> OutboxMessage:
    """Of a row with its contents."""
    return OutboxMessage(
        message_id=row.message_id,
        account_id=row.account_id,
        original_message_id=row.original_message_id,
        recipient=row.recipient,
        content=row.content,
        created_at=from_milliseconds(row.created_at),
        expires_at=from_milliseconds(row.expires_at),
        state=OutboxState(row.state),
        due_at=from_milliseconds(row.due_at),
        attempts=row.attempts,
        last_reply=row.last_reply,
        fallback=row.fallback,
        domain=row.domain,
        sender=row.sender,
        sender_account_id=row.sender_account_id,
    )
