"""Processing: a received message goes through its rules, step by step, and each is written down.

Theory of operation. A message's work is a row of a durable queue, made in the transaction that made
the message durable and leased there to the process that received it, if that has room. The plan
(`receipt.plan`) says which step is next; the step is carried out (`steps`) and its record kept.
A step that reached the outside is written down before the next one begins, so that a crash
repeats at most the one that was under way: nobody can do a thing elsewhere and record it here in
one indivisible act. Steps that reach nobody, and bounces, wait for the next write, which is also
the one that ends the message: a rule-driven bounce costs one transaction, and is in the outbox
exactly if its step is recorded as done.

A step that fails is tried again with growing waits for up to four hours (SES: PublishExpired).
Functions that are called without waiting for an answer run beside the steps behind them.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sendback.clock import Clock
from sendback.mail.headers import split_trace
from sendback.receipt.model import ACTION_TYPES, InvocationType, LambdaAction
from sendback.receipt.plan import (
    Notice,
    Plan,
    Step,
    StepOutcome,
    StepState,
    Task,
    headers_before,
    make_plan,
    progress,
    step_task,
)
from sendback.receipt.verdicts import UNKNOWN, Verdicts, verdicts_from_json
from sendback.service.acceptance import CompiledRuleSets
from sendback.service.backoff import Backoff
from sendback.service.bouncing import Bouncing
from sendback.service.content import Content, ContentGoneError, MailToCheck
from sendback.service.leases import LeaseWorker
from sendback.service.ports import ActionFailedError
from sendback.service.steps import StepContext, StepResult, Steps, needs_verdicts
from sendback.store.errors import StoreUnavailableError
from sendback.store.messages import FindBody, FindMessage
from sendback.store.processing import (
    ProcessingLease,
    RecordProgress,
    ReleaseProcessing,
    RenewProcessing,
    TakeProcessing,
)
from sendback.store.store import Store
from sendback.store.values import (
    Body,
    OutboxMessage,
    ProcessingState,
    ReceivedMessage,
    StepRecord,
)

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 1.0
_MAX_RESULT = 500


class MailAuthenticator(Protocol):
    """Finds the verdicts on a message. Never raises: what cannot be found out is a verdict too."""

    async def authenticate(self, mail: MailToCheck, *, scan: bool) -> Verdicts: ...


@dataclass(frozen=True, slots=True)
class Work:
    """A lease, with the message itself when it has just been received.

    A body that is in memory stays there until the work ends: at most 256 KiB, as the header, for
    each of the messages in progress (setting `processing_tasks`).
    """

    lease: ProcessingLease
    message: ReceivedMessage | None = None
    body: Body | None = None


@dataclass(frozen=True, slots=True)
class ProcessingParts:
    """What processing puts together."""

    store: Store
    clock: Clock
    rule_sets: CompiledRuleSets
    steps: Steps
    authenticator: MailAuthenticator
    bouncing: Bouncing
    backoff: Backoff
    give_up_after: timedelta
    lease: timedelta
    owner: str
    chance: Callable[[], float] = random.random


class Processing:
    """The queue of messages on their way through their rules."""

    def __init__(self, parts: ProcessingParts) -> None:
        self._parts = parts

    async def take(self, now: datetime, until: datetime, limit: int) -> Sequence[Work]:
        parts = self._parts
        leases = await parts.store.write(TakeProcessing(parts.owner, now, until, limit))
        return [Work(lease) for lease in leases]

    async def renew(self, keys: Sequence[str], until: datetime) -> None:
        await self._parts.store.write(RenewProcessing(self._parts.owner, tuple(keys), until))

    async def release(self, now: datetime) -> None:
        await self._parts.store.write(ReleaseProcessing(self._parts.owner, now))

    def key(self, work: Work, /) -> str:
        return work.lease.processing.processing_id

    async def work(self, work: Work, /) -> None:
        """Takes the message as far as it goes now."""
        parts, entry = self._parts, work.lease.processing
        message = work.message
        if message is None:
            message = await parts.store.read(FindMessage(entry.account_id, entry.message_id))
        if message is None:
            raise RuntimeError("a message is gone before its rules have ended")
        rules = await parts.rule_sets.get(entry.version)
        plan = make_plan(rules, [entry.address for entry in message.envelope.recipients])
        await _Run(parts, work, message, plan).go()


class ProcessingWorker:
    """Works the queue off, and takes over what was just received."""

    def __init__(self, parts: ProcessingParts, *, in_hand: int) -> None:
        self._parts = parts
        self._worker = LeaseWorker(
            Processing(parts), parts.clock, lease=parts.lease, in_hand=in_hand
        )
        self.run = self._worker.run
        self.stop = self._worker.stop

    def reserve(self) -> tuple[str, datetime] | None:
        """See `receiving.Handover`."""
        if not self._worker.reserve():
            return None
        return self._parts.owner, self._worker.lease_ends()

    def give_up(self) -> None:
        """See `receiving.Handover`."""
        self._worker.give_up()

    def take_over(self, lease: ProcessingLease, message: ReceivedMessage, body: Body) -> None:
        """See `receiving.Handover`."""
        self._worker.hold(Work(lease, message, body))


class _LeaseLostError(Exception):
    """Another worker has the message by now."""


class _Run:
    """One message, from where its record ends."""

    def __init__(
        self, parts: ProcessingParts, work: Work, message: ReceivedMessage, plan: Plan
    ) -> None:
        self._parts = parts
        self._work = work
        self._lease = work.lease
        self._message = message
        self._plan = plan
        self._records = {
            (record.rule_number, record.action_number): record for record in work.lease.steps
        }
        self._states = {
            step: StepState(record.outcome, record.disposition)
            for step, record in self._records.items()
        }
        self._unwritten: dict[Step, StepRecord] = {}
        self._bounces: list[OutboxMessage] = []
        self._beside: dict[Step, asyncio.Task[None]] = {}
        self._verdicts: Verdicts | None = None
        if work.lease.processing.verdicts:
            self._verdicts = verdicts_from_json(work.lease.processing.verdicts)
        self._content: Content | None = None

    async def go(self) -> None:
        try:
            await self._go()
        except _LeaseLostError:
            log.warning("the lease of %s had passed to another worker", self._message.message_id)
        finally:
            for task in self._beside.values():
                task.cancel()

    async def _go(self) -> None:
        now = self._parts.clock.now()
        for step in progress(self._plan, self._states).retries:
            if self._records[step].due_at <= now:
                await self._take(step)
        while True:
            following = progress(self._plan, self._states).next
            if following is not None:
                await self._take(following)
            elif self._beside:
                await asyncio.wait(self._beside.values(), return_when=asyncio.FIRST_COMPLETED)
                await self._gather()
            else:
                break
        await self._end()

    async def _gather(self) -> None:
        """Writes down what ran beside and has ended."""
        for step, task in list(self._beside.items()):
            if task.done():
                del self._beside[step]
                task.result()
                await self._write_unless_last()

    async def _take(self, step: Step) -> None:
        planned, task = step_task(self._plan, step)
        if needs_verdicts(task):
            await self._find_verdicts()
        context = StepContext(
            message=self._message,
            read_content=self._read_content,
            planned=planned,
            verdicts=self._verdicts or Verdicts(),
            added=headers_before(self._plan, self._states, step),
        )
        if isinstance(task, LambdaAction) and task.invocation_type is InvocationType.EVENT:
            self._states[step] = StepState(StepOutcome.RETRY)
            self._beside[step] = asyncio.create_task(self._carry_out(step, task, context))
            return
        await self._carry_out(step, task, context)
        if needs_verdicts(task):
            await self._write_unless_last()

    async def _carry_out(self, step: Step, task: Task, context: StepContext) -> None:
        started_at, started = self._parts.clock.now(), time.monotonic()
        earlier = self._records.get(step)
        first_at = earlier.first_at if earlier else started_at
        attempts = earlier.attempts + 1 if earlier else 1
        try:
            result = await self._parts.steps.take(task, context)
            due_at = started_at
        except ActionFailedError as error:
            result, due_at = self._failed(error, attempts, first_at)
        except StoreUnavailableError as error:
            unavailable = ActionFailedError(f"the store is unavailable: {error}")
            result, due_at = self._failed(unavailable, attempts, first_at)
        except Exception as error:
            log.exception("a step of %s broke", self._message.message_id)
            internal = ActionFailedError(f"internal error: {error!r}")
            result, due_at = self._failed(internal, attempts, first_at)
        self._records[step] = self._unwritten[step] = StepRecord(
            rule_number=step[0],
            action_number=step[1],
            rule=context.planned.rule.name,
            action=_name(task),
            outcome=result.outcome,
            disposition=result.disposition,
            attempts=attempts,
            first_at=first_at,
            last_at=started_at,
            due_at=due_at,
            milliseconds=round((time.monotonic() - started) * 1000),
            result=result.text[:_MAX_RESULT],
        )
        self._states[step] = StepState(result.outcome, result.disposition)
        if result.bounce:
            self._bounces.append(result.bounce)
        log.info(
            "%s, rule %s, %s: %s, %s",
            self._message.message_id,
            context.planned.rule.name,
            _name(task),
            result.outcome,
            result.text,
        )

    def _failed(
        self, error: ActionFailedError, attempts: int, first_at: datetime
    ) -> tuple[StepResult, datetime]:
        now = self._parts.clock.now()
        if error.final or (error.waits is not None and attempts > len(error.waits)):
            return StepResult(StepOutcome.FAILED, str(error)), now
        if error.waits is not None:
            return StepResult(StepOutcome.RETRY, str(error)), now + error.waits[attempts - 1]
        last = first_at + self._parts.give_up_after
        due_at = self._parts.backoff.next_try(attempts, now, last, self._parts.chance())
        if due_at is None:
            return StepResult(StepOutcome.EXPIRED, str(error)), now
        return StepResult(StepOutcome.RETRY, str(error)), due_at

    # --- what actions hand on -----------------------------------------------------------------

    async def _find_verdicts(self) -> None:
        """Find the verdicts out, unless the record has them."""
        if self._verdicts is not None:
            return
        scan = any(planned.rule.scan_enabled for planned in self._plan)
        try:
            content = await self._read_content()
        except ContentGoneError as error:
            log.warning("%s has no verdicts: %s", self._message.message_id, error)
            self._verdicts = UNKNOWN
            return
        _, own = split_trace(self._message.header)
        mail = MailToCheck(
            name=self._message.message_id,
            client=self._message.envelope.client,
            reverse_path=self._message.envelope.reverse_path,
            received_at=self._message.received_at,
            content=content.with_header(own),
        )
        self._verdicts = await self._parts.authenticator.authenticate(mail, scan=scan)

    async def _read_content(self) -> Content:
        """Return the message as it is stored. Raises `ContentGoneError`."""
        if self._content is None:
            store, message = self._parts.store, self._message
            body = self._work.body
            if body is None:
                body = await store.read(FindBody(message.account_id, message.message_id))
            if body is None:
                raise ContentGoneError("the content is not kept any more")
            self._content = Content(
                header=message.header,
                body=store.blobs.path(body.blob) if body.blob else body.inline or b"",
                body_size=message.size - len(message.header),
            )
        return self._content

    # --- the record -----------------------------------------------------------------------------

    async def _write_unless_last(self) -> None:
        """The end of the message is a write of its own, which takes the last steps with it."""
        if progress(self._plan, self._states).next is not None or self._beside:
            ends = self._parts.clock.now() + self._parts.lease
            await self._write(ProcessingState.QUEUED, ends, keep=True)

    async def _end(self) -> None:
        waiting = [
            self._records[step].due_at for step in progress(self._plan, self._states).retries
        ]
        if waiting:
            await self._write(ProcessingState.QUEUED, min(waiting), keep=False)
        else:
            await self._write(ProcessingState.DONE, self._parts.clock.now(), keep=False)

    async def _write(self, state: ProcessingState, due_at: datetime, *, keep: bool) -> None:
        """Tries for as long as it takes: what was done outside must not be forgotten."""
        record = RecordProgress(
            lease=self._lease,
            owner=self._parts.owner,
            steps=tuple(self._unwritten.values()),
            bounces=tuple(self._bounces),
            verdicts=self._verdicts.to_json() if self._verdicts else None,
            state=state,
            due_at=due_at,
            keep=keep,
        )
        self._unwritten, self._bounces = {}, []
        while True:
            try:
                written = await self._parts.store.write(record)
                break
            except StoreUnavailableError as error:
                log.warning("the record of %s waits: %s", self._message.message_id, error)
                await asyncio.sleep(_SETTLE_SECONDS)
        if not written:
            raise _LeaseLostError
        if record.bounces:
            self._parts.bouncing.wake_delivery()


def _name(task: Task) -> str:
    return "Notice" if isinstance(task, Notice) else ACTION_TYPES[type(task)]
