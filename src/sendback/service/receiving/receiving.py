"""Receiving: store a message and queue its processing, before it is acknowledged."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import IO, Protocol

from sendback.clock import Clock
from sendback.errors import SendbackError
from sendback.ids import IdMaker
from sendback.mail.envelope import Envelope
from sendback.mail.headers import HeaderReading, count_fields, read_header, trace_fields
from sendback.mail.loops import MAX_RECEIVED
from sendback.receipt.model import Rules
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.receiving.acceptance import Receiver
from sendback.service.receiving.spool import INLINE_OCTETS, MemoryBudget, Spool
from sendback.store.engine.content.model import ContentUnavailableError
from sendback.store.engine.errors import ClaimLostError
from sendback.store.engine.store import Store
from sendback.store.messages.messages import AddMessages, Body, ReceivedMessage
from sendback.store.rules.processing import Processing, ProcessingLease, processing_id

log = logging.getLogger(__name__)

# A bounce returns the header whole. Postfix cuts it at 100 KiB (header_size_limit).
MAX_HEADER_OCTETS = INLINE_OCTETS
# For incoming content of this process. Beyond it, content goes to files at once: a thousand clients
# could otherwise use 256 KiB each.
_MEMORY_OCTETS = 64 * 2**20
_PIECE_OCTETS = 256 * 1024


class HeaderTooLargeError(SendbackError):
    """The header section is larger than a bounce can return."""


class HopLimitError(SendbackError):
    """The message has passed so many servers that it is in a mail loop (RFC 5321 §6.3)."""


class Handover(Protocol):
    """The worker that may process a message that was just stored."""

    def reserve(self) -> tuple[str, datetime] | None:
        """Return the lease owner and its expiry, or None when this worker is at capacity."""

    def cancel_reservation(self) -> None:
        """Free the reservation: the message was not stored."""

    def take_over(self, lease: ProcessingLease, message: ReceivedMessage, body: Body) -> None:
        """Process a durable message under its lease."""


class Receiving:
    """Stores messages for the accounts that have verified their recipients."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: IdMaker,
        handover: Handover,
        *,
        hostname: str,
        retention: timedelta,
        events: EventBus,
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._handover = handover
        self._hostname = hostname
        self._retention = retention
        self._events = events
        self._memory = MemoryBudget(_MEMORY_OCTETS)

    def spool(self) -> Spool:
        """Return a spool for the content of the next message."""
        return Spool(self._store.contents.spool_directory, self._memory)

    async def receive(
        self, envelope: Envelope, receivers: Sequence[tuple[Receiver, ...]], content: Spool
    ) -> str:
        """Store the message and return its ID once it is durable.

        `receivers` has the accounts of each of the envelope's recipients: every account gets the
        message with its own recipients only, and the current version of its active rule set
        processes it. Raises `StoreUnavailableError`, `OSError`,
        `HeaderTooLargeError`, `HopLimitError`; nothing is stored then.
        """
        now = self._clock.now()
        message_id = self._ids.received_message(now)
        reading = _read_header(content)
        header = reading.header
        body = await self._body(content, reading, message_id)
        accounts = {receiver.account_id: receiver for group in receivers for receiver in group}
        messages = []
        for account in sorted(accounts):
            # With one account, all recipients are its own: others were refused.
            own = envelope if len(accounts) == 1 else _for_account(envelope, receivers, account)
            whole_header = trace_fields(own, message_id, self._hostname, now) + header
            messages.append(
                ReceivedMessage(
                    message_id=message_id,
                    account_id=account,
                    received_at=now,
                    expires_at=now + self._retention,
                    envelope=own,
                    size=len(whole_header) + len(reading.gap) + content.size - reading.octets,
                    header=whole_header,
                )
            )
        await self._keep(messages, body, accounts)
        for message in messages:
            self._events.publish(reports.received(message))
        log.info(
            "%s received from <%s> at %s for %d recipients, %d octets",
            message_id,
            envelope.reverse_path,
            envelope.client.ip,
            len(envelope.recipients),
            content.size,
        )
        return message_id

    async def _keep(
        self, messages: Sequence[ReceivedMessage], body: Body, accounts: Mapping[str, Receiver]
    ) -> None:
        """Store the message and queue its processing in one transaction, leased to this process."""
        queued = []
        versions: dict[str, Rules] = {}
        for message in messages:
            active = accounts[message.account_id].active
            if active is None:
                continue
            versions[active.version] = active.compiled.rules
            reserved = self._handover.reserve()
            owner, due_at = reserved or (None, message.received_at)
            processing = Processing(
                processing_id=processing_id(message.message_id, message.account_id),
                message_id=message.message_id,
                account_id=message.account_id,
                rule_set=active.rule_set,
                version=active.version,
                created_at=message.received_at,
                due_at=due_at,
            )
            queued.append((message, processing, owner))
        entries = tuple((processing, owner) for _, processing, owner in queued)
        ours = [(message, processing) for message, processing, owner in queued if owner]
        try:
            await self._store.write(AddMessages(tuple(messages), body, entries, versions))
        except BaseException as error:
            for _ in ours:
                self._handover.cancel_reservation()
            if body.blob and isinstance(error, Exception):
                await self._store.contents.discard(body.blob)
            if isinstance(error, ClaimLostError):
                raise ContentUnavailableError("the content took too long") from error
            raise
        for message, processing in ours:
            self._handover.take_over(ProcessingLease(processing, 1), message, body)

    async def _body(self, content: Spool, reading: HeaderReading, message_id: str) -> Body:
        if content.size <= INLINE_OCTETS:
            return Body(reading.gap + content.first(INLINE_OCTETS)[reading.octets :])
        pieces = _pieces(reading.gap, content.rest(reading.octets))
        return Body(None, await self._store.contents.keep(message_id, pieces))


def _pieces(gap: bytes, file: IO[bytes]) -> Iterator[bytes]:
    """Yield the body: the empty line, and the rest of the file."""
    if gap:
        yield gap
    while piece := file.read(_PIECE_OCTETS):
        yield piece


def _read_header(content: Spool) -> HeaderReading:
    """Raise `HeaderTooLargeError`, `HopLimitError`."""
    beginning = content.first(MAX_HEADER_OCTETS)
    reading = read_header(beginning, is_whole=content.size <= len(beginning))
    if reading is None or len(reading.header) > MAX_HEADER_OCTETS:
        raise HeaderTooLargeError
    if count_fields(reading.header, "Received") > MAX_RECEIVED:
        raise HopLimitError
    return reading


def _for_account(
    envelope: Envelope, receivers: Sequence[tuple[Receiver, ...]], account: str
) -> Envelope:
    own = tuple(
        recipient
        for recipient, group in zip(envelope.recipients, receivers, strict=True)
        if any(receiver.account_id == account for receiver in group)
    )
    if len(own) == len(envelope.recipients):
        return envelope
    return replace(envelope, recipients=own)
