"""Receiving: whose mail it is, and keeping it before it is acknowledged."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from time import monotonic

from sendback.clock import Clock
from sendback.ids import IdMaker
from sendback.mail.address import Address
from sendback.mail.covering import covering_names
from sendback.mail.envelope import Envelope
from sendback.mail.headers import header_section, is_cut_off, trace_fields
from sendback.service.spool import INLINE_OCTETS, Spool
from sendback.store.identities import AccountsVerified
from sendback.store.messages import AddMessages
from sendback.store.store import Store
from sendback.store.values import Body, ReceivedMessage

log = logging.getLogger(__name__)

# A bounce returns the header whole. Postfix cuts it at 100 KiB (header_size_limit).
MAX_HEADER_OCTETS = INLINE_OCTETS
_CACHED_RECIPIENTS = 10_000
_CACHE_SECONDS = 1.0


class HeaderTooLargeError(Exception):
    """The header section is larger than a bounce could return."""


class Receiving:
    """Takes in messages for the accounts that have verified their recipients."""

    def __init__(
        self, store: Store, clock: Clock, ids: IdMaker, *, hostname: str, retention: timedelta
    ) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._hostname = hostname
        self._retention = retention
        self._owners: dict[str, tuple[float, frozenset[str]]] = {}

    def spool(self) -> Spool:
        """Where the content of the next message goes while it comes in."""
        return Spool(self._store.blobs.spool_directory)

    def known_owners(self, recipient: Address) -> frozenset[str] | None:
        """What `owners` answered within the last second; None: ask it."""
        known = self._owners.get(recipient.key)
        return known[1] if known and monotonic() < known[0] else None

    async def owners(self, recipient: Address) -> frozenset[str]:
        """The accounts with a verified identity that covers it; empty: not our mail.

        An answer that is not empty is good for a second, so an identity deleted on another node
        stops receiving within that time. Raises `StoreUnavailableError`.
        """
        owners = await self._store.read(AccountsVerified(covering_names(recipient)))
        if len(self._owners) >= _CACHED_RECIPIENTS:
            self._owners.clear()
        if owners:
            self._owners[recipient.key] = (monotonic() + _CACHE_SECONDS, owners)
        return owners

    async def receive(
        self, envelope: Envelope, owners: Sequence[frozenset[str]], content: Spool
    ) -> str:
        """Keeps the message; answers its ID once it is durable.

        `owners` has the accounts of each of the envelope's recipients: every account gets the
        message with its own recipients only. Raises `StoreUnavailableError`, `OSError`,
        `HeaderTooLargeError`; nothing is kept then.
        """
        now = self._clock.now()
        message_id = self._ids.received_message(now)
        beginning = content.first(MAX_HEADER_OCTETS)
        header = header_section(beginning)
        if content.size > len(beginning) and is_cut_off(beginning, header):
            raise HeaderTooLargeError
        body = await self._body(content, len(header), message_id)
        messages = []
        for account in sorted(frozenset().union(*owners)):
            own = _for_account(envelope, owners, account)
            whole_header = trace_fields(own, message_id, self._hostname, now) + header
            messages.append(
                ReceivedMessage(
                    message_id=message_id,
                    account_id=account,
                    received_at=now,
                    expires_at=now + self._retention,
                    envelope=own,
                    size=len(whole_header) + content.size - len(header),
                    header=whole_header,
                )
            )
        await self._store.write(AddMessages(tuple(messages), body))
        log.info(
            "%s received from <%s> at %s for %d recipients, %d octets",
            message_id,
            envelope.reverse_path,
            envelope.client.ip,
            len(envelope.recipients),
            content.size,
        )
        return message_id

    async def _body(self, content: Spool, header_size: int, message_id: str) -> Body:
        if content.size <= INLINE_OCTETS:
            return Body(content.first(INLINE_OCTETS)[header_size:])
        file = content.rest(header_size)
        await asyncio.to_thread(self._store.blobs.keep, message_id, file)
        return Body(None, message_id)


def _for_account(envelope: Envelope, owners: Sequence[frozenset[str]], account: str) -> Envelope:
    own = tuple(
        recipient
        for recipient, accounts in zip(envelope.recipients, owners, strict=True)
        if account in accounts
    )
    if len(own) == len(envelope.recipients):
        return envelope
    return replace(envelope, recipients=own)
