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
Functions that are called without waiting for an answer run beside the steps behind them. An error
of this program is no failure of a partner: it never counts as an answer, and after a few times the
message is held with the reason, before anything behind the step is done.
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
from sendback.errors import SendbackError
from sendback.mail.headers import split_trace
from sendback.receipt.model import ACTION_TYPES, Disposition, InvocationType, LambdaAction
from sendback.receipt.plan import (
    Notice,
    Plan,
    Step,
    StepOutcome,
    StepState,
    Task,
    disposition_given_up,
    headers_before,
    make_plan,
    progress,
    step_task,
)
from sendback.receipt.verdicts import UNKNOWN, Verdicts, verdicts_from_json
from sendback.service.bouncing.send_bounce import Bouncing
from sendback.service.queues.retry import Backoff
from sendback.service.queues.worker import LeaseWorker, SetAsideError
from sendback.service.rules.compiled import CompiledRuleSets, VersionMissingError
from sendback.service.rules.content import Content, ContentGoneError, MailToCheck
from sendback.service.rules.ports import ActionFailedError
from sendback.service.rules.rounds import Rounds
from sendback.service.rules.steps import StepContext, StepResult, Steps, needs_verdicts
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.leasing import MOST_TRIES, Term, penalty
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit
from sendback.store.messages.messages import Body, FindBody, FindMessage, ReceivedMessage
from sendback.store.outbox.rows import OutboxMessage
from sendback.store.rules.processing import (
    FailProcessing,
    GiveBackProcessing,
    HasSuspectProcessing,
    ProcessingLease,
    ProcessingState,
    RecordProgress,
    ReleaseProcessing,
    RenewProcessing,
    StepRecord,
    TakeProcessing,
    TakeSuspectProcessing,
)

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 1.0
_MAX_RESULT = 500
_MAX_ERROR = 400
# For one step. Functions have 30 s, webhooks and services their own time-outs; a large mail takes
# a slow mailbox server minutes.
_STEP_SECONDS = 600.0


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
    """What processing puts together.

    `rounds` lets clients go first. `fails_closed`: a function that decides and cannot be called
    ends the rule set.
    """

    store: Store
    clock: Clock
    rule_sets: CompiledRuleSets
    steps: Steps
    authenticator: MailAuthenticator
    bouncing: Bouncing
    rounds: Rounds
    backoff: Backoff
    give_up_after: timedelta
    lease: timedelta
    owner: str
    fails_closed: bool = False
    chance: Callable[[], float] = random.random


class Processing:
    """The queue of messages on their way through their rules."""

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
            unit = FailProcessing(work.lease, reason[:_MAX_RESULT], term, final)
        await self._parts.store.write(unit)

    def key(self, work: Work, /) -> str:
        return work.lease.processing.processing_id

    async def work(self, work: Work, /) -> None:
        """Takes the message as far as it goes now. Raises `SetAsideError`."""
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
        await _Run(parts, work, message, plan).go()


class ProcessingWorker:
    """Works the queue off, and takes over what was just received."""

    def __init__(
        self, parts: ProcessingParts, *, in_hand: int, suspects: asyncio.Lock | None = None
    ) -> None:
        """`suspects`: see `leases.LeaseWorker`."""
        self._worker = LeaseWorker(
            Processing(parts),
            parts.clock,
            owner=parts.owner,
            lease=parts.lease,
            in_hand=in_hand,
            suspects=suspects,
        )
        self.run = self._worker.run
        self.stop = self._worker.stop
        self.wake = self._worker.wake

    def reserve(self) -> tuple[str, datetime] | None:
        """See `receiving.Handover`."""
        if not self._worker.reserve():
            return None
        term = self._worker.term()
        return term.owner, term.until

    def give_up(self) -> None:
        """See `receiving.Handover`."""
        self._worker.give_up()

    def take_over(self, lease: ProcessingLease, message: ReceivedMessage, body: Body) -> None:
        """See `receiving.Handover`."""
        self._worker.hold(Work(lease, message, body))


class _LeaseLostError(SendbackError):
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
        # How often the row was leased since a result was recorded; see `store/engine/leasing.py`.
        self._tries = work.lease.tries
        self._held_for = ""  # why the message is to be held
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
            if self._records[step].due_at <= now and not self._held_for:
                await self._take(step)
        while True:
            following = progress(self._plan, self._states).next
            if following is not None and not self._held_for:
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
        await self._parts.rounds.next()
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
        broken = 0
        try:
            result = await self._attempt(task, context)
            due_at = started_at
        except ActionFailedError as error:
            result, due_at = self._failed(task, error, attempts, first_at)
        except StoreUnavailableError as error:
            # No partner's failure: it is tried for as long as it takes.
            result = StepResult(StepOutcome.RETRY, f"the store is unavailable: {error}")
            due_at = self._later(attempts)
        except Exception as error:
            log.exception("a step of %s failed", self._message.message_id)
            broken = earlier.broken + 1 if earlier else 1
            result = StepResult(StepOutcome.RETRY, f"internal error: {error!r}")
            due_at = self._later(attempts)
            if broken >= MOST_TRIES:
                where = f"rule {context.planned.rule.name}, {_name(task)}"
                self._held_for = f"{where}, {broken} times: {result.text}"[:_MAX_RESULT]
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
            broken=broken,
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

    async def _attempt(self, task: Task, context: StepContext) -> StepResult:
        """A step that never ends would keep its message for ever. Raises as `Steps.take`."""
        deadline = asyncio.timeout(_STEP_SECONDS)
        try:
            async with deadline:
                return await self._parts.steps.take(task, context)
        except TimeoutError:
            if not deadline.expired():
                raise
            text = f"it had not ended after {_STEP_SECONDS:g} s"
            raise ActionFailedError(text) from None

    def _failed(
        self, task: Task, error: ActionFailedError, attempts: int, first_at: datetime
    ) -> tuple[StepResult, datetime]:
        now = self._parts.clock.now()
        if error.final or (error.waits is not None and attempts > len(error.waits)):
            return self._given_up(task, StepOutcome.FAILED, error), now
        if error.waits is not None:
            return StepResult(StepOutcome.RETRY, str(error)), now + error.waits[attempts - 1]
        last = first_at + self._parts.give_up_after
        due_at = self._parts.backoff.next_try(attempts, now, last, self._parts.chance())
        if due_at is None:
            return self._given_up(task, StepOutcome.EXPIRED, error), now
        return StepResult(StepOutcome.RETRY, str(error)), due_at

    def _given_up(self, task: Task, outcome: StepOutcome, error: ActionFailedError) -> StepResult:
        disposition = disposition_given_up(task, fails_closed=self._parts.fails_closed)
        text = str(error)[:_MAX_RESULT]
        if disposition is not Disposition.CONTINUE:
            text = f"{text[:_MAX_ERROR]}; counts as {disposition} (function_failure)"
        return StepResult(outcome, text, disposition)

    def _later(self, attempts: int) -> datetime:
        wait = self._parts.backoff.wait(attempts, self._parts.chance())
        return self._parts.clock.now() + wait

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
        is_last = progress(self._plan, self._states).next is None or bool(self._held_for)
        if is_last and not self._beside:
            return
        if any(step.outcome is not StepOutcome.RETRY for step in self._unwritten.values()):
            self._tries = 1  # a result: this lease is the first since
        lease = self._parts.lease
        ends = self._parts.clock.now() + lease + penalty(lease / 3, self._tries - 1)
        await self._write(ProcessingState.QUEUED, ends, keep=True)

    async def _end(self) -> None:
        now = self._parts.clock.now()
        waiting = [
            self._records[step].due_at for step in progress(self._plan, self._states).retries
        ]
        if self._held_for:
            log.error("%s is set aside: %s", self._message.message_id, self._held_for)
            await self._write(ProcessingState.HELD, now, keep=False)
        elif waiting:
            await self._write(ProcessingState.QUEUED, min(waiting), keep=False)
        else:
            await self._write(ProcessingState.DONE, now, keep=False)

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
            tries=self._tries if keep else 0,
            reason=self._held_for or None,
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
