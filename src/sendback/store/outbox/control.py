"""The operator's view and control of the outbox."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select, text, tuple_, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.prefixes import FindKeys
from sendback.store.engine.tables import ANSWERS, attempts, outbox
from sendback.store.engine.wakeups import Subject, wake
from sendback.store.outbox.destinations import touch, unblock
from sendback.store.outbox.rows import WHOLE, Attempt, OutboxMessage, OutboxState, Outcome, from_row

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """A selection of an account's messages: those that match all the fields that are set.

    `recipient` is a pattern with `*` and `?`; `reply` is text that the last reply contains.
    """

    account_id: str
    message_ids: tuple[str, ...] = ()
    domain: str = ""
    recipient: str = ""
    reply: str = ""
    original_message_id: str = ""
    created_before: datetime | None = None
    states: tuple[OutboxState, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether no field but `states` is set."""
        return self == Selection(self.account_id, states=self.states)

    def where(self) -> list[Any]:
        """Return the SQL conditions of the selection."""
        columns = outbox.c
        found: list[Any] = [columns.account_id == self.account_id]
        if self.message_ids:
            found.append(columns.message_id.in_(self.message_ids))
        if self.domain:
            found.append(columns.domain == self.domain)
        if self.recipient:
            found.append(columns.recipient.ilike(_like(self.recipient), escape="\\"))
        if self.reply:
            found.append(columns.last_reply.icontains(self.reply, autoescape=True))
        if self.original_message_id:
            found += [text(ANSWERS), columns.original_message_id == self.original_message_id]
        if self.created_before:
            found.append(columns.created_at < to_milliseconds(self.created_before))
        if self.states:
            found.append(columns.state.in_([state.value for state in self.states]))
        return found


@dataclass(frozen=True, slots=True)
class ListOutbox:
    """Return up to `limit` selected messages, newest first."""

    selection: Selection
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[OutboxMessage]:
        query = (
            WHOLE.where(*self.selection.where())
            .order_by(outbox.c.created_at.desc(), outbox.c.message_id.desc())
            .limit(self.limit)
        )
        return [from_row(row) for row in connection.execute(query)]


@dataclass(frozen=True, slots=True)
class Found:
    """The messages that a search has found, and how far it went.

    `searched_to` is the creation date and ID of the last message that was looked at, if there may
    be older ones.
    """

    messages: Sequence[OutboxMessage]
    searched_to: tuple[datetime, str] | None


@dataclass(frozen=True, slots=True)
class SearchOutbox:
    """Search an account's messages from the newest on, or behind `older_than`.

    Up to `limit` are found among the next `scan`: a search for what few messages have takes no
    longer than that, and is continued by the next one.
    """

    selection: Selection
    older_than: tuple[datetime, str] | None
    limit: int
    scan: int

    def __call__(self, connection: Connection, /) -> Found:
        columns = outbox.c
        near = select(columns.created_at, columns.message_id).where(
            columns.account_id == self.selection.account_id
        )
        if self.older_than is not None:
            date, key = to_milliseconds(self.older_than[0]), self.older_than[1]
            near = near.where(tuple_(columns.created_at, columns.message_id) < (date, key))
        near = near.order_by(columns.created_at.desc(), columns.message_id.desc())
        last = None
        if not self.selection.original_message_id:  # of which few have the same: an index has them
            last = connection.execute(near.offset(self.scan - 1).limit(1)).first()
        query = WHOLE.where(*self.selection.where())
        if self.older_than is not None:
            query = query.where(tuple_(columns.created_at, columns.message_id) < (date, key))
        if last is not None:
            query = query.where(
                tuple_(columns.created_at, columns.message_id) >= (last.created_at, last.message_id)
            )
        query = query.order_by(columns.created_at.desc(), columns.message_id.desc())
        found = [from_row(row) for row in connection.execute(query.limit(self.limit))]
        if len(found) == self.limit:
            return Found(found, (found[-1].created_at, found[-1].message_id))
        if last is None:
            return Found(found, None)
        return Found(found, (from_milliseconds(last.created_at), last.message_id))


def find_outbox_ids(account_id: str, prefix: str, limit: int) -> FindKeys:
    """Return the unit that finds the first IDs of the account's messages with a prefix."""
    columns = outbox.c
    return FindKeys(columns.message_id, columns.account_id == account_id, prefix, limit)


@dataclass(frozen=True, slots=True)
class FindOutboxMessage:
    """Return a message and its attempts in order, or None."""

    account_id: str
    message_id: str

    def __call__(self, connection: Connection, /) -> tuple[OutboxMessage, Sequence[Attempt]] | None:
        query = WHOLE.where(
            outbox.c.message_id == self.message_id, outbox.c.account_id == self.account_id
        )
        row = connection.execute(query).first()
        if row is None:
            return None
        tried = (
            select(attempts)
            .where(attempts.c.message_id == self.message_id)
            .order_by(attempts.c.number)
        )
        return from_row(row), [_attempt(item) for item in connection.execute(tried)]


@dataclass(frozen=True, slots=True)
class CountStates:
    """Return how many of an account's messages are in each state, without states of none."""

    account_id: str

    def __call__(self, connection: Connection, /) -> dict[OutboxState, int]:
        query = (
            select(outbox.c.state, func.count())
            .where(outbox.c.account_id == self.account_id)
            .group_by(outbox.c.state)
        )
        return {OutboxState(state): count for state, count in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class ChooseOutbox:
    """Return the IDs of selected messages in one of the states, after the ID `after`.

    Up to a thousand, in order. A read transaction, so that no writer waits for a long search.
    """

    selection: Selection
    states: tuple[OutboxState, ...]
    after: str = ""

    def __call__(self, connection: Connection, /) -> Sequence[str]:
        query = (
            select(outbox.c.message_id)
            .where(
                *self.selection.where(),
                outbox.c.state.in_([state.value for state in self.states]),
                outbox.c.message_id > self.after,
            )
            .order_by(outbox.c.message_id)
            .limit(_CHUNK)
        )
        return list(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class ChangeState:
    """Move messages from one of the `origin` states to `state`; return how many were moved.

    `queued` makes them due now and unblocks their domains; queued messages that are due already do
    not count. `expires_at`, if given, is their new end of retries. Leased messages are unchanged.
    """

    message_ids: tuple[str, ...]
    origin: tuple[OutboxState, ...]
    state: OutboxState
    now: datetime
    expires_at: datetime | None = None

    def __call__(self, connection: Connection, /) -> int:
        rows = connection.execute(self._query()).all()
        if not rows:
            return 0
        # The new token fences off a worker whose lease ended before this change.
        values: dict[str, Any] = {
            "state": self.state.value,
            "lease_owner": None,
            "lease_token": outbox.c.lease_token + 1,
        }
        if self.state is OutboxState.QUEUED:
            values |= {"due_at": to_milliseconds(self.now), "tries": 0}
        if self.expires_at is not None:
            values["expires_at"] = to_milliseconds(self.expires_at)
        chosen = outbox.c.message_id.in_([row.message_id for row in rows])
        connection.execute(update(outbox).where(chosen).values(values))
        domains = {row.domain for row in rows}
        if self.state is OutboxState.QUEUED:
            unblock(connection, domains)
            wake(connection, Subject.DELIVERY)
        touch(connection, domains)
        return len(rows)

    def _query(self) -> Select[Any]:
        columns, now = outbox.c, to_milliseconds(self.now)
        is_waiting = columns.state == OutboxState.QUEUED.value
        # A lease that has ended does not count.
        is_free = ~is_waiting | columns.lease_owner.is_(None) | (columns.due_at <= now)
        query = select(columns.message_id, columns.domain).where(
            columns.message_id.in_(self.message_ids),
            columns.state.in_([state.value for state in self.origin]),
            is_free,
        )
        if self.state in self.origin:
            query = query.where((columns.state != self.state.value) | (columns.due_at > now))
        # A row that is being leased is waited for, and then it does not match any more.
        return query.order_by(columns.message_id).with_for_update()


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").replace("?", "_")


def _attempt(row: Any) -> Attempt:
    return Attempt(
        started_at=from_milliseconds(row.started_at),
        milliseconds=row.milliseconds,
        outcome=Outcome(row.outcome),
        peer=row.peer,
        tls=row.tls,
        reply=row.reply,
        tls_policy=row.tls_policy,
    )
