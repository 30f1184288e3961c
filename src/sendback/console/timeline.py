"""What happened to a message, in order: one line each, in the past tense. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sendback.receipt.model import Disposition
from sendback.receipt.plan import StepOutcome
from sendback.receipt.verdicts import Verdict, verdicts_from_json
from sendback.service.rules.control import ShownMessage
from sendback.store.outbox.rows import Attempt, OutboxMessage, Outcome
from sendback.store.rules.processing import ProcessingState, StepRecord

_STEP_WORDS = {
    StepOutcome.DONE: "was done",
    StepOutcome.RETRY: "failed and is tried again",
    StepOutcome.FAILED: "failed",
    StepOutcome.EXPIRED: "was given up",
    StepOutcome.SKIPPED: "was left out",
}
_STEP_TONES = {
    StepOutcome.RETRY: "warn",
    StepOutcome.FAILED: "bad",
    StepOutcome.EXPIRED: "bad",
    StepOutcome.SKIPPED: "info",
}
_ATTEMPT_WORDS = {
    Outcome.DELIVERED: "accepted it",
    Outcome.CAPTURED: "stored it: nothing is sent",
    Outcome.TEMPORARY: "deferred it",
    Outcome.PERMANENT: "refused it",
}
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
    found = [_received(shown), *_verdicts(shown), *_waiting(shown)]
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
    details = (
        f"from {envelope.client.ip} ({envelope.client.helo}), {tls}",
        f"{shown.message.size} octets, stored before the reply 250",
    )
    return Happening(shown.message.received_at, text, details)


def _verdicts(shown: ShownMessage) -> list[Happening]:
    entry = shown.processing
    if entry is None or not entry.verdicts:
        return []
    statuses = verdicts_from_json(entry.verdicts).statuses(scanned=True)
    known = {name: status for name, status in statuses.items() if status is not Verdict.DISABLED}
    if not known:
        return []
    words = ", ".join(
        f"{name.removesuffix('Verdict').upper()} {status.value}" for name, status in known.items()
    )
    tone = "warn" if Verdict.FAIL in known.values() else ""
    first = min((step.first_at for step in shown.steps), default=shown.message.received_at)
    return [Happening(first, "Checked", (words,), tone=tone)]


def _waiting(shown: ShownMessage) -> list[Happening]:
    """Return the line of rules that are held, dropped or not begun."""
    entry = shown.processing
    if entry is None or entry.state is ProcessingState.DONE:
        return []
    last = max((step.last_at for step in shown.steps), default=entry.created_at)
    if entry.state is ProcessingState.QUEUED:
        if shown.steps:
            return []
        return [Happening(last, f"Rule set {entry.rule_set} is to run", tone="info")]
    words = {ProcessingState.HELD: "Set aside", ProcessingState.DROPPED: "Ended by the operator"}
    return [Happening(last, words[entry.state], _lines(entry.reason), tone="bad")]


def _step(step: StepRecord) -> Happening:
    tone = _STEP_TONES.get(step.outcome, "")
    text = f"Rule {step.rule}: {step.action} {_STEP_WORDS[step.outcome]}"
    details = _lines(step.result)
    if step.disposition is not Disposition.CONTINUE:
        details = (*details, f"it returned {step.disposition.value}: later rules did not run")
    if step.attempts > 1 or step.outcome is StepOutcome.RETRY:
        times = "once" if step.attempts == 1 else f"{step.attempts} times"
        details = (*details, f"tried {times}, first at {step.first_at:%Y-%m-%d %H:%M:%S} UTC")
    if step.outcome is StepOutcome.RETRY:
        details = (*details, f"next attempt at {step.due_at:%Y-%m-%d %H:%M:%S} UTC")
    return Happening(step.last_at, text, details, step.milliseconds, tone)


def _lines(text: str | None) -> tuple[str, ...]:
    return (text,) if text else ()


def _bounce(bounce: OutboxMessage) -> Happening:
    details = (bounce.message_id,)
    text = f"Bounce queued for {bounce.recipient}"
    return Happening(
        bounce.created_at, text, details, tone="info", link=f"/bounces/{bounce.message_id}"
    )


def _attempt(attempt: Attempt, bounce: OutboxMessage) -> Happening:
    text = f"{attempt.peer or bounce.domain} {_ATTEMPT_WORDS[attempt.outcome]}"
    policy = f", policy {attempt.tls_policy}" if attempt.tls_policy else ""
    details = _lines(attempt.reply)
    if attempt.outcome is not Outcome.CAPTURED:
        details = (*details, f"{attempt.tls or 'no TLS'}{policy}")
    return Happening(
        attempt.started_at, text, details, attempt.milliseconds, _TONES[attempt.outcome]
    )
