"""Delivery: what is queued in the outbox goes out through the transport, each attempt recorded.

How leases are taken and kept: `service.leases`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sendback.clock import Clock
from sendback.delivery.transports import Result, Transport
from sendback.service.backoff import Backoff
from sendback.service.leases import LeaseWorker
from sendback.store.errors import StoreUnavailableError
from sendback.store.outbox import RecordAttempt, ReleaseLeases, RenewLeases, TakeLeases
from sendback.store.store import Store
from sendback.store.values import Attempt, Lease, OutboxState, Outcome

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 1.0

_STATES = {
    Outcome.DELIVERED: OutboxState.DELIVERED,
    Outcome.CAPTURED: OutboxState.CAPTURED,
    Outcome.PERMANENT: OutboxState.FAILED,
}


class OutboxDelivery:
    """The outbox as a queue of deliveries through one transport."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        transport: Transport,
        *,
        owner: str,
        backoff: Backoff,
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._clock = clock
        self._transport = transport
        self._owner = owner
        self._backoff = backoff
        self._chance = chance
        self._stopping = False

    async def take(self, now: datetime, until: datetime, limit: int) -> Sequence[Lease]:
        return await self._store.write(TakeLeases(self._owner, now, until, limit))

    async def renew(self, keys: Sequence[str], until: datetime) -> None:
        await self._store.write(RenewLeases(self._owner, tuple(keys), until))

    async def release(self, now: datetime) -> None:
        await self._store.write(ReleaseLeases(self._owner, now))

    def key(self, lease: Lease, /) -> str:
        return lease.message.message_id

    async def work(self, lease: Lease, /) -> None:
        """One attempt."""
        started_at, started = self._clock.now(), time.monotonic()
        result = await self._attempt(lease)
        milliseconds = round((time.monotonic() - started) * 1000)
        attempt = Attempt(
            started_at, milliseconds, result.outcome, result.peer, result.tls, result.reply
        )
        await self._record(lease, attempt, result)

    def stop_waiting(self) -> None:
        """From now on a store that cannot write is not waited for."""
        self._stopping = True

    async def close(self) -> None:
        await self._transport.close()

    async def _attempt(self, lease: Lease) -> Result:
        """A fault of ours is a temporary failure: seen in the outbox, tried again, backed off."""
        try:
            return await self._transport.deliver(lease.message)
        except Exception as error:
            log.exception("the delivery of %s broke", lease.message.message_id)
            return Result(Outcome.TEMPORARY, "none", f"internal error: {error!r}")

    async def _record(self, lease: Lease, attempt: Attempt, result: Result) -> None:
        message = lease.message
        state, due_at = _STATES.get(result.outcome), self._clock.now()
        if state is None:
            next_try = self._backoff.next_try(
                message.attempts + 1, due_at, message.expires_at, self._chance()
            )
            state = OutboxState.QUEUED if next_try else OutboxState.EXPIRED
            due_at = next_try or due_at
        record = RecordAttempt(lease, attempt, state, due_at)
        if not await self._write_down(record):
            log.warning("the lease of %s had passed to another worker", message.message_id)
        log.info("%s to %s: %s, %s", message.message_id, message.recipient, state, result.reply)

    async def _write_down(self, record: RecordAttempt) -> bool:
        """Tries for as long as the lease is renewed: what the peer has said must not be lost."""
        while True:
            try:
                return await self._store.write(record)
            except StoreUnavailableError:
                if self._stopping:
                    raise
                await asyncio.sleep(_SETTLE_SECONDS)


class DeliveryWorker:
    """Delivers from the outbox."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        transport: Transport,
        *,
        owner: str,
        backoff: Backoff,
        lease: timedelta,
        in_hand: int,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`in_hand` is how many messages it holds at most; `chance` spreads the retries."""
        self._outbox = OutboxDelivery(
            store, clock, transport, owner=owner, backoff=backoff, chance=chance
        )
        self._worker = LeaseWorker(self._outbox, clock, lease=lease, in_hand=in_hand)
        self.wake = self._worker.wake

    async def run(self) -> None:
        """Works until `stop` is called; then finishes what is on the wire."""
        try:
            await self._worker.run()
        finally:
            await self._outbox.close()

    def stop(self) -> None:
        self._outbox.stop_waiting()
        self._worker.stop()
