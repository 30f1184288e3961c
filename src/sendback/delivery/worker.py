"""The delivery worker: sends queued outbox messages by the transport and records each attempt.

Leases: `service.queues.worker`. The concurrency of each domain: `domain_concurrency`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sendback.clock import Clock
from sendback.crypto.sealing import SecretError
from sendback.delivery.domain_concurrency import DomainConcurrency
from sendback.delivery.transports import Fault, Result, Transport
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.queues.retry import Backoff, random_share
from sendback.service.queues.worker import LeaseWorker
from sendback.store.engine.errors import LeaseLostError, StoreUnavailableError
from sendback.store.engine.leasing import MOST_TRIES, Term
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit
from sendback.store.outbox.destinations import Block
from sendback.store.outbox.queue import (
    FailDelivery,
    HasSuspects,
    RecordAttempt,
    RenewLeases,
    Requeue,
    TakeLeases,
    TakeSuspect,
)
from sendback.store.outbox.rows import Attempt, Lease, OutboxState, Outcome

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 1.0
_REASON_LENGTH = 300
# In seconds. The timeouts of RFC 5321 §4.5.3.2 for ten servers are not much longer.
_LONGEST_ATTEMPT = 7200.0
# One in so many of the leased messages may be for domains that have failed.
_SHARE_OF_PROBES = 8

_STATES = {
    Outcome.DELIVERED: OutboxState.DELIVERED,
    Outcome.CAPTURED: OutboxState.CAPTURED,
    Outcome.PERMANENT: OutboxState.FAILED,
}


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The delays after a failure: of a message, and of a domain."""

    message: Backoff
    domain: Backoff


class OutboxDelivery:
    """The outbox as a queue of deliveries through one transport."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        transport: Transport,
        *,
        retry_policy: RetryPolicy,
        probes: int,
        jitter: Callable[[], float],
        events: EventBus,
    ) -> None:
        """`probes` is how many leased messages may be for domains that have failed."""
        self._store = store
        self._clock = clock
        self._transport = transport
        self._retry_policy = retry_policy
        self._probes = probes
        self._jitter = jitter
        self._events = events
        self._stopping = False
        self._concurrency = DomainConcurrency(transport.per_domain)
        self._held: dict[str, Lease] = {}

    async def take(self, term: Term, limit: int) -> Sequence[Lease]:
        probing = sum(1 for lease in self._held.values() if lease.failures)
        first = self._concurrency.initial_capacity
        unit = TakeLeases(
            term,
            limit,
            capacity=limit if first is None else first,
            probes=min(limit, self._probes - probing),
            capacities=self._concurrency.capacities(),
        )
        leases = await self._store.write(unit)
        for lease in leases:
            self._hold(lease)
        return leases

    async def take_suspect(self, term: Term) -> Lease | None:
        if not await self._store.read(HasSuspects(term.now)):
            return None
        lease = await self._store.write(TakeSuspect(term))
        if lease is not None:
            self._hold(lease)
        return lease

    async def renew(self, term: Term, keys: Sequence[str]) -> None:
        await self._store.write(RenewLeases(term, tuple(keys)))

    async def release(self, term: Term, keys: Sequence[str]) -> None:
        """Requeue what could not be finished, due at once."""
        leases = [self._held.pop(key) for key in keys if key in self._held]
        await asyncio.gather(*(self._store.write(Requeue(lease, term.now)) for lease in leases))

    async def failed(self, lease: Lease, error: Exception, term: Term) -> None:
        unit: Unit[None]
        if isinstance(error, StoreUnavailableError):
            reason = f"the store is unavailable: {error}"[:_REASON_LENGTH]
            unit = Requeue(lease, term.now + term.step, reason)
        else:
            unit = FailDelivery(lease, f"internal error: {error!r}"[:_REASON_LENGTH], term)
        await self._store.write(unit)

    def _hold(self, lease: Lease) -> None:
        self._held[lease.message.message_id] = lease
        self._concurrency.add_leased(lease.message.domain)

    def key(self, lease: Lease, /) -> str:
        return lease.message.message_id

    async def work(self, lease: Lease, /) -> None:
        """Make one attempt, or requeue it if the domain fails while it waits for a slot."""
        domain = lease.message.domain
        try:
            if await self._concurrency.enter(domain):
                await self._try(lease)
            else:
                await self._store.write(Requeue(lease, self._clock.now()))
        except Exception:
            del self._held[lease.message.message_id]  # `failed` requeues it
            raise
        else:
            del self._held[lease.message.message_id]
        finally:
            self._concurrency.remove_leased(domain)

    def stop_waiting(self) -> None:
        """Stop waiting for a store that cannot write."""
        self._stopping = True

    async def close(self) -> None:
        await self._transport.close()

    async def _try(self, lease: Lease) -> None:
        domain = lease.message.domain
        started_at, started = self._clock.now(), time.monotonic()
        on_wire = True
        try:
            result, is_broken = await self._attempt(lease)
            attempt = Attempt(
                started_at=started_at,
                milliseconds=round((time.monotonic() - started) * 1000),
                outcome=result.outcome,
                peer=result.peer,
                tls=result.tls,
                reply=result.reply,
                tls_policy=result.tls_policy,
            )
            block = self._domain_block(lease, result)
            if block is None:
                self._concurrency.leave(domain)
                on_wire = False
            # Messages that wait for a slot are requeued only after the block is recorded.
            await self._record(lease, attempt, result, block, is_broken=is_broken)
        finally:
            if on_wire:
                self._concurrency.record_failure(domain)
                self._concurrency.leave(domain)

    async def _attempt(self, lease: Lease) -> tuple[Result, bool]:
        """Return how the attempt ended, and whether in an error of this program.

        Such an error is a temporary failure: seen in the outbox, tried again, backed off; the
        message is held when it happens too often in a row. Raises `StoreUnavailableError`.
        """
        message = lease.message
        try:
            async with asyncio.timeout(_LONGEST_ATTEMPT):
                return await self._transport.deliver(message), False
        except StoreUnavailableError:
            raise
        except SecretError as error:
            # It must not be sent without its signatures.
            text = f"4.7.5 it cannot be signed: {error}"[:_REASON_LENGTH]
            return Result(Outcome.TEMPORARY, "none", text), False
        except Exception as error:
            log.exception("the delivery of %s failed", message.message_id)
            return Result(Outcome.TEMPORARY, "none", f"internal error: {error!r}"), True

    def _domain_block(self, lease: Lease, result: Result) -> Block | None:
        """Return the block of the domain that the result causes, None if there is none."""
        domain = lease.message.domain
        if result.fault is Fault.MESSAGE:
            self._concurrency.record_reply(domain)
            return None
        refuses = self._concurrency.count_refusal(domain) or lease.failures > 0
        if result.fault is Fault.UNCLEAR and not refuses:
            return None
        failures = lease.failures + 1
        wait = self._retry_policy.domain.wait(failures, self._jitter())
        log.warning(
            "deliveries to %s are paused for %d s: %s", domain, wait.total_seconds(), result.reply
        )
        return Block(failures, self._clock.now() + wait, result.reply[:_REASON_LENGTH])

    async def _record(
        self,
        lease: Lease,
        attempt: Attempt,
        result: Result,
        block: Block | None,
        *,
        is_broken: bool,
    ) -> None:
        message = lease.message
        state, due_at = _STATES.get(result.outcome), self._clock.now()
        if state is None:
            next_try = self._next_try(lease, due_at, result.retry_after)
            state = OutboxState.QUEUED if next_try else OutboxState.EXPIRED
            due_at = next_try or due_at
        if is_broken and (lease.tries >= MOST_TRIES or state is OutboxState.EXPIRED):
            state = OutboxState.HELD
        record = RecordAttempt(lease, attempt, state, due_at, block, is_suspect=is_broken)
        try:
            await self._write_down(record)
        except LeaseLostError:
            log.warning("the lease of %s had passed to another worker", message.message_id)
        else:
            self._events.publish(reports.attempt(message, attempt, state, due_at))
        log.info("%s to %s: %s, %s", message.message_id, message.recipient, state, result.reply)

    def _next_try(
        self, lease: Lease, now: datetime, retry_after: timedelta | None
    ) -> datetime | None:
        message = lease.message
        if retry_after is not None:
            return now + retry_after if now + retry_after <= message.expires_at else None
        return self._retry_policy.message.next_try(
            message.attempts + 1, now, message.expires_at, self._jitter()
        )

    async def _write_down(self, record: RecordAttempt) -> None:
        """Retry while the lease is renewed: the server's reply must not be lost."""
        while True:
            try:
                await self._store.write(record)
                return
            except StoreUnavailableError:
                if self._stopping:
                    raise
                await asyncio.sleep(_SETTLE_SECONDS)


class DeliveryWorker:
    """The worker that delivers the outbox."""

    def __init__(  # noqa: PLR0913 - its settings, by keyword
        self,
        store: Store,
        clock: Clock,
        transport: Transport,
        *,
        owner: str,
        retry_policy: RetryPolicy,
        lease: timedelta,
        capacity: int,
        suspects: asyncio.Lock | None = None,
        jitter: Callable[[], float] = random_share,
        events: EventBus | None = None,
    ) -> None:
        """`capacity` is how many messages it leases at most.

        `jitter` returns a number from 0 to 1 that spreads the retries.
        `suspects`: see `service.queues.worker.LeaseWorker`.
        """
        probes = max(1, capacity // _SHARE_OF_PROBES)
        self._outbox = OutboxDelivery(
            store,
            clock,
            transport,
            retry_policy=retry_policy,
            probes=probes,
            jitter=jitter,
            events=events or EventBus(),
        )
        self._worker = LeaseWorker(
            self._outbox, clock, owner=owner, lease=lease, concurrency=capacity, suspects=suspects
        )
        self.transport = transport
        self.wake = self._worker.wake
        self.idle = self._worker.idle
        self.clock_moved = self._worker.clock_moved
        self.suspended = self._worker.suspended

    @property
    def capacity(self) -> int:
        """The free capacity for leases."""
        return self._worker.capacity

    async def run(self) -> None:
        """Work until `stop` is called, then finish the deliveries in progress."""
        try:
            await self._worker.run()
        finally:
            await self._outbox.close()

    def stop(self) -> None:
        self._outbox.stop_waiting()
        self._worker.stop()
