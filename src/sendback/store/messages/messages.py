"""Received messages and their envelopes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Self

from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    delete,
    insert,
    or_,
    select,
    text,
    update,
)

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.mail.envelope import Envelope
from sendback.receipt.model import Rules
from sendback.store.engine.content.ledger import confirm_claims, in_ledger, mark_unused
from sendback.store.engine.errors import ClaimLostError, RefusedError
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.locking import Place, has_row_locks, lock_rows
from sendback.store.engine.prefixes import FindKeys
from sendback.store.engine.sweeping import Budget, SweepStep, Swept, behind, in_order
from sendback.store.engine.tables import HAS_CONTENT, SET_ASIDE, messages, processing
from sendback.store.engine.transactions import BatchUnit
from sendback.store.messages.envelopes import envelope_from_json, envelope_to_json
from sendback.store.rules.processing import (
    QUEUE,
    Processing,
    ProcessingState,
    add_processing,
    key_of,
    processing_id,
)
from sendback.store.rules.rule_sets import keep_versions


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A received message without its body. `size` is in octets, of header and body."""

    message_id: str
    account_id: str
    received_at: datetime
    expires_at: datetime
    envelope: Envelope
    size: int
    header: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """A body in the row, or its blob: the name of a content store and its name there."""

    inline: bytes | None
    blob: str | None = None


WITHOUT_BODY = (
    messages.c.message_id,
    messages.c.account_id,
    messages.c.received_at,
    messages.c.expires_at,
    messages.c.envelope,
    messages.c.size,
    messages.c.header,
)
_FIND = HotStatement(
    select(*WITHOUT_BODY).where(messages.c.message_id.in_(bindparam("ids", expanding=True)))
)
_ADD = HotStatement(insert(messages))


IS_PROCESSING = processing.c.processing_id == key_of(messages.c.message_id, messages.c.account_id)
# Conditions for states that few messages are in, each with a partial index of `processing`.
_FEW: dict[ProcessingState, Any] = {
    ProcessingState.QUEUED: QUEUE.is_queued,
    ProcessingState.HELD: text(f"processing.{SET_ASIDE}"),
    ProcessingState.DROPPED: text(f"processing.{SET_ASIDE}"),
}


@dataclass(frozen=True, slots=True)
class AddMessages(BatchUnit[None]):
    """Add a received message, one row for each of its accounts.

    `processing` are the rows to queue for the accounts' rules, each with the owner of its lease or
    None. `versions` are the rules that these name, by version: deleted ones are restored. A body in
    a content store must have a claim, or the unit is refused with `ClaimLostError`.
    """

    place: ClassVar = Place.RECEIVING

    messages: tuple[ReceivedMessage, ...]
    body: Body
    processing: tuple[tuple[Processing, str | None], ...] = ()
    versions: Mapping[str, Rules] = field(default_factory=dict)

    @classmethod
    def run_together(
        cls, connection: Connection, units: Sequence[Self]
    ) -> Sequence[RefusedError | None]:
        blobs = [unit.body.blob for unit in units if unit.body.blob]
        lost = confirm_claims(connection, blobs) if blobs else frozenset()
        results = [
            ClaimLostError(unit.body.blob) if unit.body.blob in lost else None for unit in units
        ]
        cls._add(connection, [unit for unit in units if unit.body.blob not in lost])
        return results

    @classmethod
    def _add(cls, connection: Connection, units: Sequence[Self]) -> None:
        rows = [_to_row(message, unit.body) for unit in units for message in unit.messages]
        if not rows:
            return
        _ADD.run_all(connection, rows)
        entries = [entry for unit in units for entry in unit.processing]
        if entries:
            add_processing(connection, entries)
            versions = {v: r for unit in units for v, r in unit.versions.items()}
            keep_versions(connection, versions, units[0].messages[0].received_at)


@dataclass(frozen=True, slots=True)
class FindMessage:
    """Return the account's copy of the message, or None."""

    account_id: str
    message_id: str

    def __call__(self, connection: Connection, /) -> ReceivedMessage | None:
        key = (self.account_id, self.message_id)
        return find_messages(connection, [key]).get(key)


def find_message_ids(account_id: str, prefix: str, limit: int) -> FindKeys:
    """Return the unit that finds the first IDs of the account's messages with a prefix."""
    columns = messages.c
    return FindKeys(columns.message_id, columns.account_id == account_id, prefix, limit)


@dataclass(frozen=True, slots=True)
class FindBody:
    """Return the message's body, or None when the message does not exist or has expired."""

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
    """Return the account's messages, newest first, each with the state of its processing or None.

    With `state`, only those in that state.
    """

    account_id: str
    limit: int
    state: ProcessingState | None = None

    def __call__(
        self, connection: Connection, /
    ) -> Sequence[tuple[ReceivedMessage, ProcessingState | None]]:
        query = self._query().limit(self.limit)
        return [
            (message_from_row(row), ProcessingState(row.state) if row.state else None)
            for row in connection.execute(query)
        ]

    def _query(self) -> Select[Any]:
        few = _FEW.get(self.state) if self.state else None
        if few is not None:
            return (
                select(*WITHOUT_BODY, processing.c.state)
                .select_from(processing)
                .join(messages, IS_PROCESSING)
                .where(processing.c.account_id == self.account_id, few)
                .where(processing.c.state == str(self.state))
                .order_by(processing.c.message_id.desc())
            )
        query = (
            select(*WITHOUT_BODY, processing.c.state)
            .outerjoin(processing, IS_PROCESSING)
            .where(messages.c.account_id == self.account_id)
            .order_by(messages.c.message_id.desc())
        )
        return query.where(processing.c.state == str(self.state)) if self.state else query


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireContent(SweepStep):
    """Delete the content of expired messages, but not their records.

    The record lets a late SendBounce report when the message expired. A message whose processing is
    queued keeps its content however short the retention is; one whose processing is held keeps it
    if it was received after `held_since`.
    """

    now: datetime
    held_since: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        columns = messages.c
        is_recent = columns.received_at >= to_milliseconds(self.held_since)
        needed = or_(_in_state(ProcessingState.QUEUED), _in_state(ProcessingState.HELD) & is_recent)
        query = select(*_SWEPT, needed.label("stays")).where(
            text(f"({HAS_CONTENT})"), columns.expires_at <= to_milliseconds(self.now)
        )
        rows = connection.execute(
            in_order(connection, query, columns.expires_at, columns.message_id, self.after)
        ).all()
        budget: Budget[Any] = Budget()
        looked_at = budget.take(rows, _inline_octets).chosen
        expired = without_requeued(connection, [row for row in looked_at if not row.stays])
        named = lock_blobs(connection, [row.blob for row in expired if row.blob])
        if expired:
            connection.execute(_EMPTY, [_key(row) for row in expired])
        blobs = unused_blobs(connection, named)
        after = behind(looked_at, len(rows), "expires_at", self.after, _stays)
        return Swept(len(expired), after, blobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetMessages(SweepStep):
    """Delete the records of expired messages received before `before`, unless in processing."""

    now: datetime
    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        columns = messages.c
        is_unexpired = columns.expires_at > to_milliseconds(self.now)
        needed = or_(is_unexpired, _in_state(ProcessingState.QUEUED))
        query = select(
            *_SWEPT, columns.body.is_(None).label("has_no_inline_body"), needed.label("stays")
        ).where(columns.received_at < to_milliseconds(self.before))
        rows = connection.execute(
            in_order(connection, query, columns.received_at, columns.message_id, self.after)
        ).all()
        budget: Budget[Any] = Budget()
        looked_at = budget.take(
            rows, lambda row: (0, 0) if row.has_no_inline_body else _inline_octets(row)
        ).chosen
        done = without_requeued(connection, [row for row in looked_at if not row.stays])
        named = lock_blobs(connection, [row.blob for row in done if row.blob])
        if done:
            connection.execute(_DELETE, [_key(row) for row in done])
        blobs = unused_blobs(connection, named)
        after = behind(looked_at, len(rows), "received_at", self.after, _stays)
        return Swept(len(done), after, blobs)


def without_requeued(connection: Connection, rows: Sequence[Any]) -> Sequence[Any]:
    """Return the rows of messages without those whose processing was requeued since they were read.

    The processing of the others is locked: an operator who retries it waits.
    """
    if not has_row_locks(connection) or not rows:
        return rows
    keys = [processing_id(row.message_id, row.account_id) for row in rows]
    lock_rows(connection, processing.c.processing_id, keys)
    query = select(processing.c.processing_id).where(
        processing.c.processing_id.in_(keys), processing.c.state == ProcessingState.QUEUED.value
    )
    queued = set(connection.execute(query).scalars())
    return [row for row, key in zip(rows, keys, strict=True) if key not in queued]


@dataclass(frozen=True, slots=True)
class BlobsInUse:
    """Return those of the names that a message or the ledger of contents has."""

    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> frozenset[str]:
        return _in_messages(connection, self.names) | in_ledger(connection, self.names)


def lock_blobs(connection: Connection, names: Collection[str]) -> Collection[str]:
    """Lock the rows that have these blobs, before some of these are deleted; return the names.

    Accounts share the body of one message. Two transactions that delete the rows of two accounts at
    the same time would each find the other's row, and the body would stay for ever.
    """
    if names:
        query = select(messages.c.message_id).where(messages.c.blob.in_(names))
        order = query.order_by(messages.c.message_id, messages.c.account_id)
        connection.execute(order.with_for_update()).all()
    return names


def unused_blobs(connection: Connection, names: Collection[str]) -> tuple[str, ...]:
    """Return those of the names that no row has any more, and record them as unused."""
    if not names:
        return ()
    unused = set(names) - _in_messages(connection, names)
    mark_unused(connection, unused)
    return tuple(sorted(unused))


def _in_messages(connection: Connection, names: Collection[str]) -> frozenset[str]:
    query = select(messages.c.blob).where(messages.c.blob.in_(names))
    return frozenset(name for name in connection.execute(query).scalars() if name)


def find_messages(
    connection: Connection, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], ReceivedMessage]:
    """Return the existing messages by (account ID, message ID)."""
    ids = [message_id for _, message_id in keys]
    found = (message_from_row(row) for row in _FIND.rows(connection, {"ids": ids}))
    by_key = {(message.account_id, message.message_id): message for message in found}
    return {key: by_key[key] for key in keys if key in by_key}


_OF_KEY = (
    messages.c.message_id == bindparam("of_message"),
    messages.c.account_id == bindparam("of_account"),
)
_EMPTY = update(messages).where(*_OF_KEY).values(body=None, blob=None, header=b"")
_DELETE = delete(messages).where(*_OF_KEY)


_SWEPT = (
    messages.c.message_id,
    messages.c.account_id,
    messages.c.received_at,
    messages.c.expires_at,
    messages.c.size,
    messages.c.blob,
)


def _stays(row: Any) -> bool:
    return bool(row.stays)


def _key(row: Any) -> dict[str, object]:
    return {"of_message": row.message_id, "of_account": row.account_id}


def _inline_octets(row: Any) -> tuple[int, int]:
    """Return what `Budget` counts for a row: a body elsewhere costs this transaction nothing."""
    return (0 if row.blob else row.size), 0


def _in_state(state: ProcessingState) -> Any:
    """Return the SQL condition that the message's processing is in that state."""
    return (
        select(processing.c.processing_id)
        .where(IS_PROCESSING, processing.c.state == state.value)
        .exists()
    )


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


def message_from_row(row: Any) -> ReceivedMessage:
    """Return the message of a row with the columns `WITHOUT_BODY`."""
    return ReceivedMessage(
        message_id=row.message_id,
        account_id=row.account_id,
        received_at=from_milliseconds(row.received_at),
        expires_at=from_milliseconds(row.expires_at),
        envelope=envelope_from_json(row.envelope),
        size=row.size,
        header=row.header,
    )
