"""SES API: SendBounce, and the bounces that receipt rules send.

The request is parsed (`requests`). `access` checks it against the received
message and the identities, `composing` writes the bounce. The bounce is committed to the outbox in
one transaction with all that it changes: the account's rate, and the remembered call.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sendback.aws.errors import SesError, message_rejected
from sendback.clock import Clock
from sendback.errors import SendbackError
from sendback.mail.covering import covering_names
from sendback.mail.envelope import Envelope, Notify, Recipient
from sendback.mail.loops import reason_for_silence
from sendback.service.access.authorization import Access
from sendback.service.bouncing.access import BounceAccess, BounceUses, originals
from sendback.service.bouncing.composing import BounceComposer
from sendback.service.bouncing.requests import BounceRequest
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.heavy import HeavyWork
from sendback.store.bouncing.bounces import FindForBounce, Found, QueueBounce
from sendback.store.bouncing.calls import CallKey
from sendback.store.engine.errors import RateLimitedError
from sendback.store.engine.store import Store
from sendback.store.identities.identities import IsVerified
from sendback.store.messages.messages import ReceivedMessage
from sendback.store.outbox.rows import OutboxMessage

log = logging.getLogger(__name__)

_HEAVY_LIST = 200  # recipients: some 4 ms of deciding, 3 ms of composing
_HEAVY_POLICIES = 32 * 1024  # octets: some 5 ms of reading, and as much of evaluating the worst


class SilentError(SendbackError):
    """Mail that is not answered automatically (RFC 3834 §2, RFC 5321 §6.1); `str` says why."""


@dataclass(frozen=True, slots=True)
class BouncingParts:
    """The dependencies and settings of `Bouncing`.

    `rate` is in calls per second and account, 0 for no limit.
    """

    store: Store
    clock: Clock
    access: BounceAccess
    composer: BounceComposer
    heavy: HeavyWork
    rate: float
    honour_notify_never: bool
    events: EventBus


class Bouncing:
    """Sends bounces for received messages."""

    def __init__(self, parts: BouncingParts) -> None:
        self._store = parts.store
        self._clock = parts.clock
        self._access = parts.access
        self._composer = parts.composer
        self._heavy = parts.heavy
        self._interval = timedelta(seconds=1 / parts.rate) if parts.rate else None
        self._honour_notify_never = parts.honour_notify_never
        self._events = parts.events

    async def send_bounce(
        self, access: Access, request: BounceRequest, call: CallKey | None
    ) -> str:
        """Queue the bounce and return its MessageId; for a repeated call, that of the first.

        Raises `SesError`, `StoreUnavailableError`.
        """
        composed = await self._compose(access, request, call)
        if isinstance(composed, str):
            return composed
        message, bounce = composed
        bounce_id = await self._queue(bounce, call)
        if bounce_id == bounce.message_id:
            self._events.publish(reports.bounce(bounce, "api"))
            _log_unusual(message, bounce_id)
        return bounce_id

    async def preview(self, access: Access, request: BounceRequest) -> OutboxMessage:
        """Return the bounce that `send_bounce` would queue; nothing is changed.

        Raises `SesError`, `StoreUnavailableError`.
        """
        composed = await self._compose(access, request, None)
        if isinstance(composed, str):
            raise TypeError("a preview is no repeated call")
        return composed[1]

    async def _compose(
        self, access: Access, request: BounceRequest, call: CallKey | None
    ) -> tuple[ReceivedMessage, OutboxMessage] | str:
        """Return the message and its bounce; for a repeated call, the first one's MessageId."""
        is_large = len(request.recipients) > _HEAVY_LIST
        uses, unit = await self._heavy.run(
            lambda: self._to_find(access, request, call), heavy=is_large
        )
        found = await self._store.read(unit)
        if found.repeated:
            return found.repeated
        now = self._clock.now()
        message, pairs = await self._heavy.run(
            lambda: self._access.resolve(access, uses, found, now),
            heavy=is_large or _has_many_policies(found),
        )
        if self._honour_notify_never:
            _refuse_unwanted([original for _, original in pairs])
        returned = await self._composer.returned(message)
        composed = await self._heavy.run(
            lambda: self._composer.compose(request, message, pairs, returned, now), heavy=is_large
        )
        return message, replace(composed, account_id=access.caller.account_id)

    async def by_rule(self, message: ReceivedMessage, request: BounceRequest) -> OutboxMessage:
        """Return the bounce that a rule sends, composed and not queued.

        It is queued in the transaction that records the rule's step, and has no rate limit. Raises
        `SilentError` for mail that is not answered automatically, `SesError`,
        `StoreUnavailableError`.
        """
        reason = reason_for_silence(message.header)
        if message.envelope.reverse_path.address is None:
            reason = "it has a null reverse-path"
        never = _unwanted(message.envelope)  # RFC 3461 §4.1
        wanted = tuple(a for a in request.recipients if a.recipient.key not in never)
        if not wanted:
            reason = "its sender wants no notification (NOTIFY=NEVER)"
        if reason:
            raise SilentError(reason)
        names = covering_names(request.sender_address)
        if not await self._store.read(IsVerified(message.account_id, names)):
            raise self._access.not_verified(request.sender_address)
        returned = await self._composer.returned(message)
        now = self._clock.now()

        def compose() -> OutboxMessage:
            pairs = originals(message, wanted)
            return self._composer.compose(request, message, pairs, returned, now)

        return await self._heavy.run(compose, heavy=len(wanted) > _HEAVY_LIST)

    def _to_find(
        self, access: Access, request: BounceRequest, call: CallKey | None
    ) -> tuple[BounceUses, FindForBounce]:
        uses = self._access.uses(access, request)
        return uses, uses.to_find(access.caller.account_id, call)

    async def _queue(self, bounce: OutboxMessage, call: CallKey | None) -> str:
        try:
            return await self._store.write(QueueBounce(bounce, call, self._interval))
        except RateLimitedError:
            raise SesError("Throttling", "Rate exceeded") from None


def _has_many_policies(found: Found) -> bool:
    if not found.policies:
        return False
    octets = sum(len(policy.document) for held in found.policies.values() for policy in held)
    return octets > _HEAVY_POLICIES


def _refuse_unwanted(originals: Sequence[Recipient]) -> None:
    """RFC 3461 §4.1: NOTIFY=NEVER. SendBounce is called explicitly, so this is a setting."""
    for original in originals:
        if Notify.NEVER in original.notify:
            raise message_rejected(
                f"The sender wants no notification about {original.address} (NOTIFY=NEVER)."
            )


def _unwanted(envelope: Envelope) -> set[str]:
    return {entry.address.key for entry in envelope.recipients if Notify.NEVER in entry.notify}


def _log_unusual(message: ReceivedMessage, bounce_id: str) -> None:
    """Log a bounce for mail that a rule would not bounce."""
    if not log.isEnabledFor(logging.INFO):
        return
    reason = reason_for_silence(message.header)
    if reason:
        log.info("bounce %s answers message %s, though %s", bounce_id, message.message_id, reason)
