"""The delivery worker: takes leases, delivers, records what came of it.

Any number of workers serve one outbox. Each keeps a number of messages in hand, renews their
leases while it lives, and gives them back when it is told to stop.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta

from sendback.clock import Clock
from sendback.delivery.backoff import Backoff
from sendback.delivery.transports import Result, Transport
from sendback.store.errors import StoreUnavailableError
from sendback.store.outbox import RecordAttempt, ReleaseLeases, RenewLeases, TakeLeases
from sendback.store.store import Store
from sendback.store.values import Attempt, Lease, OutboxState, Outcome

log = logging.getLogger(__name__)

# How long a row queued by another process may wait to be seen.
_POLL_SECONDS = 1.0
_SETTLE_SECONDS = 1.0

_STATES = {
    Outcome.DELIVERED: OutboxState.DELIVERED,
    Outcome.CAPTURED: OutboxState.CAPTURED,
    Outcome.PERMANENT: OutboxState.FAILED,
}


class DeliveryWorker:
    """Delivers from the outbox through one transport."""

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
        self._store = store
        self._clock = clock
        self._transport = transport
        self._owner = owner
        self._backoff = backoff
        self._lease = lease
        self._in_hand = in_hand
        self._chance = chance
        self._wake = asyncio.Event()
        self._held: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def wake(self) -> None:
        """Something was queued."""
        self._wake.set()

    async def run(self) -> None:
        """Works until `stop` is called; then finishes what is on the wire."""
        renewing = asyncio.create_task(self._renew())
        try:
            while not self._stopping:
                if not await self._take():
                    await self._wait()
        finally:
            renewing.cancel()
            await self._finish()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _take(self) -> bool:
        """Takes what there is and room for; answers whether there may be more to take now."""
        room = self._in_hand - len(self._held)
        if room < max(1, self._in_hand // 4):  # larger steps, fewer transactions
            return False
        now = self._clock.now()
        try:
            leases = await self._store.write(TakeLeases(self._owner, now, now + self._lease, room))
        except StoreUnavailableError as error:
            log.warning("the outbox cannot be read, delivery will go on by itself: %s", error)
            await asyncio.sleep(_POLL_SECONDS)
            return False
        for lease in leases:
            task = asyncio.create_task(self._deliver(lease))
            self._held[lease.message.message_id] = task
        return len(leases) == room

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), _POLL_SECONDS)
        self._wake.clear()

    async def _deliver(self, lease: Lease) -> None:
        try:
            started_at, started = self._clock.now(), time.monotonic()
            result = await self._attempt(lease)
            milliseconds = round((time.monotonic() - started) * 1000)
            attempt = Attempt(
                started_at, milliseconds, result.outcome, result.peer, result.tls, result.reply
            )
            await self._record(lease, attempt, result)
        except Exception:
            # The row keeps its lease and comes back by itself; the others must go on.
            log.exception("the attempt at %s was not recorded", lease.message.message_id)
        finally:
            del self._held[lease.message.message_id]
            self._wake.set()

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

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            if not self._held:
                continue
            until = self._clock.now() + self._lease
            try:
                await self._store.write(RenewLeases(self._owner, tuple(self._held), until))
            except StoreUnavailableError as error:
                log.warning("leases could not be renewed: %s", error)

    async def _finish(self) -> None:
        """Lets what is on the wire end, for as long as a lease lasts, and gives back the rest."""
        if self._held:
            tasks = list(self._held.values())
            await asyncio.wait(tasks, timeout=min(10.0, self._lease.total_seconds()))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._store.write(ReleaseLeases(self._owner, self._clock.now()))
        except StoreUnavailableError as error:
            log.warning("leases were not given back and will end by themselves: %s", error)
        await self._transport.close()
