"""The queue of received messages that rules process, and its worker.

A message's processing is a row of a durable queue. It is added in the transaction that stores the
message, and leased there to the process that received it, if that has capacity. `run` takes one
message through its rules.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from sendback.receipt.plan import (
    make_plan,
)
from sendback.service.queues.worker import LeaseWorker, SetAsideError
from sendback.service.rules.compiled import VersionMissingError
from sendback.service.rules.run import MessageRun, ProcessingParts, Work
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.leasing import Term
from sendback.store.engine.transactions import Unit
from sendback.store.messages.messages import Body, FindMessage, ReceivedMessage
from sendback.store.rules.processing import (
    FailProcessing,
    GiveBackProcessing,
    HasSuspectProcessing,
    ProcessingLease,
    ReleaseProcessing,
    RenewProcessing,
    TakeProcessing,
    TakeSuspectProcessing,
)

_MAX_REASON = 500


class Processing:
    """The queue of messages that are to be processed."""

    def __init__(self, parts: ProcessingParts) -> None:
        self._parts = parts

    async def take(self, term: Term, limit: int) -> Sequence[Work]:
        leases = await self._parts.store.write(TakeProcessing(term, limit))
        return [Work(lease) for lease in leases]

    async def take_suspect(self, term: Term) -> Work | None:
        store = self._parts.store
        if not await store.read(HasSuspectProcessing(term.now)):
            return None
        lease = await store.write(TakeSuspectProcessing(term))
        return Work(lease) if lease else None

    async def renew(self, term: Term, keys: Sequence[str]) -> None:
        await self._parts.store.write(RenewProcessing(term, tuple(keys)))

    async def release(self, term: Term, keys: Sequence[str]) -> None:
        await self._parts.store.write(ReleaseProcessing(term.owner, tuple(keys), term.now))

    async def failed(self, work: Work, error: Exception, term: Term) -> None:
        unit: Unit[None]
        if isinstance(error, StoreUnavailableError):
            unit = GiveBackProcessing(work.lease, term.now + term.step)
        else:
            final = isinstance(error, SetAsideError)
            reason = str(error) if final else f"internal error: {error!r}"
            unit = FailProcessing(work.lease, reason[:_MAX_REASON], term, final)
        await self._parts.store.write(unit)

    def key(self, work: Work, /) -> str:
        return work.lease.processing.processing_id

    async def work(self, work: Work, /) -> None:
        """Process the message until it ends or has to wait. Raises `SetAsideError`."""
        parts, entry = self._parts, work.lease.processing
        await parts.rounds.next()
        message = work.message
        if message is None:
            message = await parts.store.read(FindMessage(entry.account_id, entry.message_id))
        if message is None:
            raise SetAsideError("the message is gone, though its rules have not ended")
        try:
            rules = await parts.rule_sets.get(entry.version)
        except VersionMissingError as error:
            raise SetAsideError(str(error)) from error
        plan = make_plan(rules, [entry.address for entry in message.envelope.recipients])
        await MessageRun(parts, work, message, plan).go()


class ProcessingWorker:
    """Processes the queue, and messages that this process has just received."""

    def __init__(
        self, parts: ProcessingParts, *, concurrency: int, suspects: asyncio.Lock | None = None
    ) -> None:
        """`suspects`: see `service.queues.worker.LeaseWorker`."""
        self._worker = LeaseWorker(
            Processing(parts),
            parts.clock,
            owner=parts.owner,
            lease=parts.lease,
            concurrency=concurrency,
            suspects=suspects,
        )
        self.run = self._worker.run
        self.stop = self._worker.stop
        self.wake = self._worker.wake
        self.idle = self._worker.idle
        self.clock_moved = self._worker.clock_moved
        self.suspended = self._worker.suspended

    @property
    def capacity(self) -> int:
        """The free capacity for leases."""
        return self._worker.capacity

    def reserve(self) -> tuple[str, datetime] | None:
        """See `receiving.Handover`."""
        if not self._worker.reserve():
            return None
        term = self._worker.term()
        return term.owner, term.until

    def cancel_reservation(self) -> None:
        """See `receiving.Handover`."""
        self._worker.cancel_reservation()

    def take_over(self, lease: ProcessingLease, message: ReceivedMessage, body: Body) -> None:
        """See `receiving.Handover`."""
        self._worker.process(Work(lease, message, body))
