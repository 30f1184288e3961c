"""Received messages, bounces and their parts as JSON: the forms of the API and of `--json`."""

from collections.abc import Mapping, Sequence
from typing import Any

from sendback.dsn import NotADsnError, ParsedDsn, ParsedRecipient, parse
from sendback.mail.headers import field_values
from sendback.receipt.plan import StepOutcome
from sendback.receipt.verdicts import Verdict, verdicts_from_json
from sendback.service.rules.control import ShownMessage
from sendback.store.messages.messages import ReceivedMessage
from sendback.store.outbox.rows import Attempt, OutboxMessage
from sendback.store.rules.processing import StepRecord


def message_row(message: ReceivedMessage) -> dict[str, Any]:
    """Return a received message as lists show it."""
    envelope = message.envelope
    return {
        "message_id": message.message_id,
        "received_at": message.received_at,
        "expires_at": message.expires_at,
        "from": str(envelope.reverse_path) or None,
        "to": [str(recipient.address) for recipient in envelope.recipients],
        "subject": subject_of(message.header),
        "size": message.size,
    }


def subject_of(header: bytes) -> str | None:
    """Return the first Subject of a header section, as it is written there."""
    found = field_values(header, "Subject")
    return found[0].decode("utf-8", "replace") if found else None


def whole_message(shown: ShownMessage) -> dict[str, Any]:
    """Return a received message with its envelope, processing and steps, without content."""
    message = shown.message
    return {**message_row(message), **_envelope(message), **_processing(shown)}


def _envelope(message: ReceivedMessage) -> dict[str, Any]:
    envelope = message.envelope
    return {
        "client": envelope.client.ip,
        "helo": envelope.client.helo,
        "tls": envelope.client.tls,
        "envid": envelope.envelope_id,
        "ret": envelope.ret,
        "notify": [",".join(sorted(entry.notify)) or None for entry in envelope.recipients],
        "orcpt": [
            f"{entry.original.address_type};{entry.original.address}" if entry.original else None
            for entry in envelope.recipients
        ],
    }


def _processing(shown: ShownMessage) -> dict[str, Any]:
    """Return the state of the processing, and its steps in order."""
    entry = shown.processing
    if entry is None:
        return {"rule_set": None}
    verdicts = {}
    if entry.verdicts:
        verdicts = verdict_fields(verdicts_from_json(entry.verdicts).statuses(scanned=True))
    return {
        "rule_set": entry.rule_set,
        "processing": entry.state.value,
        "reason": entry.reason or None,
        **verdicts,
        "steps": [step_row(step) for step in shown.steps],
    }


def verdict_fields(verdicts: Mapping[str, Verdict]) -> dict[str, str]:
    """Return the verdicts by names such as spam_verdict; `verdicts` has those of events."""
    return {name.replace("Verdict", "_verdict"): found.value for name, found in verdicts.items()}


def step_row(step: StepRecord) -> dict[str, Any]:
    """Return a step of a rule."""
    return {
        "at": step.last_at,
        "rule": step.rule,
        "action": step.action,
        "outcome": step.outcome.value,
        "disposition": step.disposition.value,
        "attempts": step.attempts,
        "milliseconds": step.milliseconds,
        "next_at": step.due_at if step.outcome is StepOutcome.RETRY else None,
        "result": step.result,
    }


def bounce_row(message: OutboxMessage) -> dict[str, Any]:
    """Return outgoing mail as lists show it."""
    return {
        "message_id": message.message_id,
        "original_message_id": message.original_message_id,
        "created_at": message.created_at,
        "sender": message.sender,
        "recipient": str(message.recipient),
        "state": message.state.value,
        "attempts": message.attempts,
        "due_at": message.due_at if message.state == "queued" else None,
        "last_reply": message.last_reply or None,
    }


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    """Return a delivery attempt."""
    return {
        "started_at": attempt.started_at,
        "milliseconds": attempt.milliseconds,
        "outcome": attempt.outcome.value,
        "peer": attempt.peer or None,
        "tls": attempt.tls or None,
        "tls_policy": attempt.tls_policy or None,
        "reply": attempt.reply or None,
    }


def whole_bounce(message: OutboxMessage, attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Return a bounce with its attempts, and what its report says."""
    return {
        **bounce_row(message),
        "tries": [attempt_row(attempt) for attempt in attempts],
        "dsn": dsn_of(message),
    }


def dsn_of(message: OutboxMessage) -> dict[str, Any] | None:
    """Return the report of a bounce; None for mail that is none."""
    try:
        return _dsn(parse(message.content))
    except NotADsnError:
        return None


def _dsn(parsed: ParsedDsn) -> dict[str, Any]:
    return {
        "reporting_mta": parsed.message_value("Reporting-MTA") or None,
        "arrival_date": parsed.message_value("Arrival-Date") or None,
        "original_envelope_id": parsed.message_value("Original-Envelope-Id") or None,
        "explanation": parsed.explanation,
        "recipients": [_dsn_recipient(recipient) for recipient in parsed.recipients],
    }


def _dsn_recipient(recipient: ParsedRecipient) -> dict[str, Any]:
    return {
        "final_recipient": recipient.final_recipient,
        "action": recipient.action,
        "status": recipient.status,
        "diagnostic": recipient.diagnostic or None,
        "fields": [[name, value] for name, value in recipient.fields],
    }
