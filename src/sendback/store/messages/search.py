"""Received messages as the console searches and lists them: the newest first, in bounded steps.

Nothing is indexed for this, so that receiving costs no more. A search reads a number of rows behind
a message; one that finds little is continued by the next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Text, cast, func, or_, select, text

from sendback.receipt.plan import StepOutcome
from sendback.store.engine.tables import ANSWERS, messages, outbox, processing, steps
from sendback.store.messages.messages import (
    IS_PROCESSING,
    WITHOUT_BODY,
    ReceivedMessage,
    message_from_row,
)
from sendback.store.outbox.rows import OutboxState
from sendback.store.rules.processing import ProcessingState, key_of

_MOST_CANDIDATES = 500
_BAD = (StepOutcome.FAILED.value, StepOutcome.EXPIRED.value, StepOutcome.RETRY.value)


@dataclass(frozen=True, slots=True)
class MailRow:
    """A message with what lists show of its processing.

    `verdicts` is the JSON of `receipt.verdicts`. `worst` is the outcome of a step that has failed
    or is to be retried. `bounces` are the states of its bounces.
    """

    message: ReceivedMessage
    processing: ProcessingState | None
    verdicts: str | None
    worst: StepOutcome | None = None
    bounces: tuple[OutboxState, ...] = ()


@dataclass(frozen=True, slots=True)
class MailFound:
    """The rows, and the ID behind which the search goes on, if there may be older messages."""

    rows: Sequence[MailRow]
    searched_to: str | None


@dataclass(frozen=True, slots=True)
class MailConditions:
    """What the database checks, each a part of what is asked for: `accepts` has the last word.

    `words` are texts without regard to case, ASCII only, that the header or the envelope contains.
    """

    words: tuple[str, ...] = ()
    states: tuple[ProcessingState, ...] = ()
    bounced: bool = False
    failed: bool = False
    has_verdicts: bool = False


@dataclass(frozen=True, slots=True)
class SearchMessages:
    """Search an account's messages older than the ID `before` and not older than `since`.

    At most `limit` are found among the next `scan`.
    """

    account_id: str
    before: str
    since: str
    conditions: MailConditions
    accepts: Callable[[MailRow], bool]
    limit: int
    scan: int

    def __call__(self, connection: Connection, /) -> MailFound:
        ids = messages.c.message_id
        mine = messages.c.account_id == self.account_id
        span = [mine, ids >= self.since]
        if self.before:
            span.append(ids < self.before)
        end = connection.execute(
            select(ids).where(*span).order_by(ids.desc()).offset(self.scan - 1).limit(1)
        ).scalar()
        if end is not None:
            span.append(ids >= end)
        query = (
            select(*WITHOUT_BODY, processing.c.state, processing.c.verdicts)
            .outerjoin(processing, IS_PROCESSING)
            .where(*span, *self._where(connection.dialect.name))
            .order_by(ids.desc())
            .limit(_MOST_CANDIDATES)
        )
        rows: list[MailRow] = []
        for candidates, row in enumerate(connection.execute(query), 1):
            found = _row(row)
            if self.accepts(found):
                rows.append(found)
            if len(rows) == self.limit or candidates == _MOST_CANDIDATES:
                return MailFound(_with_outcomes(connection, rows), found.message.message_id)
        return MailFound(_with_outcomes(connection, rows), end)

    def _where(self, dialect: str) -> list[Any]:
        wanted = self.conditions
        found = [_contains(word, dialect) for word in wanted.words]
        if wanted.states:
            found.append(processing.c.state.in_([state.value for state in wanted.states]))
        if wanted.has_verdicts:
            found.append(processing.c.verdicts.is_not(None))
        if wanted.bounced:
            bounce = select(outbox.c.message_id).where(
                text(ANSWERS),
                outbox.c.original_message_id == messages.c.message_id,
                outbox.c.account_id == messages.c.account_id,
            )
            found.append(bounce.exists())
        if wanted.failed:
            key = key_of(messages.c.message_id, messages.c.account_id)
            step = select(steps.c.rule).where(
                steps.c.processing_id == key, steps.c.outcome.in_(_BAD)
            )
            found.append(step.exists())
        return found


@dataclass(frozen=True, slots=True)
class FindMailRows:
    """Return the rows of an account's messages with these IDs, the newest first."""

    account_id: str
    message_ids: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Sequence[MailRow]:
        query = (
            select(*WITHOUT_BODY, processing.c.state, processing.c.verdicts)
            .outerjoin(processing, IS_PROCESSING)
            .where(
                messages.c.account_id == self.account_id,
                messages.c.message_id.in_(self.message_ids),
            )
            .order_by(messages.c.message_id.desc())
        )
        return _with_outcomes(connection, [_row(row) for row in connection.execute(query)])


def _row(row: Any) -> MailRow:
    state = ProcessingState(row.state) if row.state else None
    return MailRow(message_from_row(row), state, row.verdicts)


def _contains(word: str, dialect: str) -> Any:
    """Return the condition that the header or the envelope contains a word.

    A header with encoded words may contain anything.
    """
    header: Any = cast(messages.c.header, Text)
    if dialect == "postgresql":
        header = func.encode(messages.c.header, "escape")
    return or_(
        header.icontains(word, autoescape=True),
        messages.c.envelope.icontains(word, autoescape=True),
        header.contains("=?", autoescape=True),
    )


def _with_outcomes(connection: Connection, rows: Sequence[MailRow]) -> list[MailRow]:
    """Return the rows with the outcomes of their steps and the states of their bounces."""
    if not rows:
        return []
    ids = [row.message.message_id for row in rows]
    account_id = rows[0].message.account_id
    worst = _worst(connection, account_id, ids)
    bounces = _bounces(connection, account_id, ids)
    return [
        MailRow(
            row.message,
            row.processing,
            row.verdicts,
            worst.get(row.message.message_id),
            bounces.get(row.message.message_id, ()),
        )
        for row in rows
    ]


def _worst(
    connection: Connection, account_id: str, ids: Sequence[str]
) -> Mapping[str, StepOutcome]:
    query = (
        select(processing.c.message_id, steps.c.outcome)
        .join(steps, steps.c.processing_id == processing.c.processing_id)
        .where(
            processing.c.processing_id.in_([f"{message_id}/{account_id}" for message_id in ids]),
            steps.c.outcome.in_(_BAD),
        )
    )
    found: dict[str, StepOutcome] = {}
    for row in connection.execute(query):
        outcome = StepOutcome(row.outcome)
        if outcome is not StepOutcome.RETRY or row.message_id not in found:
            found[row.message_id] = outcome
    return found


def _bounces(
    connection: Connection, account_id: str, ids: Sequence[str]
) -> Mapping[str, tuple[OutboxState, ...]]:
    query = (
        select(outbox.c.original_message_id, outbox.c.state)
        .where(
            text(ANSWERS),
            outbox.c.original_message_id.in_(ids),
            outbox.c.account_id == account_id,
        )
        .limit(len(ids) * 10)
    )
    found: dict[str, tuple[OutboxState, ...]] = {}
    for row in connection.execute(query):
        known = found.get(row.original_message_id, ())
        found[row.original_message_id] = (*known, OutboxState(row.state))
    return found
