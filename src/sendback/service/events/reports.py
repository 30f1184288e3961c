"""The events of the server's work, made from what the work recorded."""

import re
from collections.abc import Sequence
from datetime import datetime

from sendback.mail.headers import field_values
from sendback.service.events.model import MAX_ITEMS, Event, EventKind
from sendback.store.identities.identities import Identity
from sendback.store.messages.messages import ReceivedMessage
from sendback.store.outbox.rows import Attempt, OutboxMessage, OutboxState
from sendback.store.rules.processing import StepRecord

_STATUS = re.compile(rb"\r\nStatus: (\d\.\d{1,3}\.\d{1,3})")
_SEARCHED = 64 * 1024  # octets: the explanation comes first, and is shorter


def received(message: ReceivedMessage) -> Event:
    """Return the event of a message that is stored."""
    envelope = message.envelope
    subject = field_values(message.header, "Subject")
    return Event(
        EventKind.RECEIVED,
        message.account_id,
        message.received_at,
        message.message_id,
        {
            "from": str(envelope.reverse_path) or None,
            "to": [str(entry.address) for entry in envelope.recipients[:MAX_ITEMS]],
            "recipient_count": len(envelope.recipients),
            "subject": subject[0].decode("utf-8", "replace") if subject else None,
            "size": message.size,
            "client": envelope.client.ip,
        },
    )


def refused(
    date: datetime,
    *,
    client: str,
    command: str,
    reply: str,
    sender: str | None,
    recipients: Sequence[str],
) -> Event:
    """Return the event of a command, a message or a client that is refused with a reply."""
    fields = {
        "client": client,
        "command": command,
        "reply": reply,
        "from": sender,
        "to": recipients[:MAX_ITEMS],
    }
    return Event(EventKind.REFUSED, None, date, None, fields)


def step(message: ReceivedMessage, record: StepRecord) -> Event:
    """Return the event of a step of a rule that is recorded."""
    return Event(
        EventKind.STEP,
        message.account_id,
        record.last_at,
        message.message_id,
        {
            "rule": record.rule,
            "action": record.action,
            "outcome": record.outcome.value,
            "disposition": record.disposition.value,
            "attempts": record.attempts,
            "milliseconds": record.milliseconds,
            "result": record.result,
        },
    )


def bounce(message: OutboxMessage, by: str) -> Event:
    """Return the event of a bounce that is queued, `by` the API or a rule."""
    return Event(
        EventKind.BOUNCE,
        message.account_id,
        message.created_at,
        message.message_id,
        {
            "original_message_id": message.original_message_id,
            "sender": message.sender,
            "recipient": str(message.recipient),
            "by": by,
            "status": status_of(message.content),
        },
    )


def status_of(report: bytes) -> str | None:
    """Return the status that a report has for its recipient. RFC 3464 §2.3.4."""
    found = _STATUS.search(report, 0, _SEARCHED)
    return found[1].decode("ascii") if found else None


def attempt(message: OutboxMessage, made: Attempt, state: OutboxState, due_at: datetime) -> Event:
    """Return the event of a delivery attempt, with the state of the message after it."""
    return Event(
        EventKind.ATTEMPT,
        message.account_id,
        made.started_at,
        message.message_id,
        {
            "original_message_id": message.original_message_id or None,
            "recipient": str(message.recipient),
            "number": message.attempts + 1,
            "outcome": made.outcome.value,
            "state": state.value,
            "peer": made.peer or None,
            "tls": made.tls or None,
            "reply": made.reply or None,
            "milliseconds": made.milliseconds,
            "next_at": due_at if state is OutboxState.QUEUED else None,
        },
    )


def identity_changed(found: Identity, date: datetime, change: str) -> Event:
    """Return the event of a change of an identity, such as `requested`."""
    return identity_event(found.account_id, found.identity, date, change, found.status.value)


def identity_event(
    account_id: str, identity: str, date: datetime, change: str, status: str | None
) -> Event:
    """Return the event of a change of an identity, by its name."""
    fields = {"identity": identity, "change": change, "status": status}
    return Event(EventKind.IDENTITY, account_id, date, None, fields)


def setting_changed(date: datetime, change: str, account_id: str | None = None) -> Event:
    """Return the event of a change of the server itself, or of an account's rules or filters."""
    return Event(EventKind.SETTING, account_id, date, None, {"change": change})
