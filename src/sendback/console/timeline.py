"""What happened to a message, in order: one line each, in the past tense. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sendback.receipt.plan import StepOutcome
from sendback.service.rules.control import ShownMessage
from sendback.store.outbox.rows import Attempt, OutboxMessage, Outcome
from sendback.store.rules.processing import StepRecord

_TONES = {
    Outcome.DELIVERED: "",
    Outcome.CAPTURED: "",
    Outcome.TEMPORARY: "warn",
    Outcome.PERMANENT: "bad",
}


@dataclass(frozen=True, slots=True)
class Happening:
    """A line of the timeline. `details` are shown below it, `link` is a page of the console.

    `tone` is empty (well), `warn`, `bad` or `info`.
    """

    date: datetime
    text: str
    details: tuple[str, ...] = ()
    milliseconds: int | None = None
    tone: str = ""
    link: str = ""


def timeline(
    shown: ShownMessage, bounces: Sequence[tuple[OutboxMessage, Sequence[Attempt]]]
) -> list[Happening]:
    """Return all that is recorded about a message, the oldest first."""
    found = [_received(shown)]
    found += [_step(step) for step in shown.steps]
    for bounce, attempts in bounces:
        found.append(_bounce(bounce))
        found += [_attempt(attempt, bounce) for attempt in attempts]
    return sorted(found, key=lambda happening: happening.date)


def _received(shown: ShownMessage) -> Happening:
    envelope = shown.message.envelope
    count = len(envelope.recipients)
    text = f"Received for {'one recipient' if count == 1 else f'{count} recipients'}"
    tls = envelope.client.tls or "no TLS"
    details = (f"from {envelope.client.ip} ({envelope.client.helo}), {tls}; stored before 250",)
    return Happening(shown.message.received_at, text, details)


def _step(step: StepRecord) -> Happening:
    tone = {StepOutcome.RETRY: "warn", StepOutcome.FAILED: "bad"}.get(step.outcome, "")
    text = f"Rule {step.rule}: {step.action} {step.outcome.value}"
    details = (step.result,) if step.result else ()
    return Happening(step.last_at, text, details, step.milliseconds, tone)


def _bounce(bounce: OutboxMessage) -> Happening:
    details = (bounce.message_id,)
    text = f"Bounce queued for {bounce.recipient}"
    return Happening(
        bounce.created_at, text, details, tone="info", link=f"/bounces/{bounce.message_id}"
    )


def _attempt(attempt: Attempt, bounce: OutboxMessage) -> Happening:
    text = f"{attempt.peer or bounce.domain} {attempt.outcome.value}"
    details = (attempt.reply,) if attempt.reply else ()
    return Happening(
        attempt.started_at, text, details, attempt.milliseconds, _TONES[attempt.outcome]
    )
