"""Takes one received message through its rules, step by step, and records each step.

Theory of operation. The plan (`receipt.plan`) determines which step is next; `steps` carries it
out. A step that has an effect outside is recorded before the next one begins, so that a crash
repeats at most one step: an effect elsewhere and a record here cannot be one transaction. Steps
without an effect outside, and bounces, are recorded by the next write, which is also the one that
ends the message. A bounce by a rule costs one transaction, and it is in the outbox exactly if its
step is recorded as done.

A step that fails is retried with growing waits for up to four hours (SES: PublishExpired).
Functions that are called asynchronously (InvocationType Event) run concurrently with the steps that
follow. An internal error is not a failure of the target: it never counts as a result, and after a
few times the message is held with the reason, before any step that follows.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from sendback.clock import Clock
from sendback.mail.headers import split_trace
from sendback.receipt.given_verdicts import results_of
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
    progress,
    step_task,
)
from sendback.receipt.verdicts import UNKNOWN, Verdicts, verdicts_from_json
from sendback.service.bouncing.send_bounce import Bouncing
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.queues.retry import Backoff, random_share
from sendback.service.rules.compiled import CompiledRuleSets
from sendback.service.rules.content import Content, ContentGoneError, MailToCheck
from sendback.service.rules.ports import ActionFailedError
from sendback.service.rules.rounds import Rounds
from sendback.service.rules.steps import StepContext, StepResult, Steps, needs_verdicts
from sendback.service.rules.stored import content_of
from sendback.store.engine.errors import LeaseLostError, StoreUnavailableError
from sendback.store.engine.leasing import MOST_TRIES, penalty
from sendback.store.engine.store import Store
from sendback.store.messages.messages import Body, FindBody, ReceivedMessage
from sendback.store.outbox.rows import OutboxMessage
from sendback.store.rules.processing import (
    ProcessingLease,
    ProcessingState,
    RecordProgress,
    StepRecord,
)

log = logging.getLogger(__name__)

_SETTLE_SECONDS = 1.0
# The longest wait for a store that cannot be read: it is back soon, or it takes long. Waiting
# messages must not use all of `processing_tasks` then.
_STORE_RETRY = timedelta(seconds=5)
_LATER_STORE_RETRY = timedelta(minutes=1)
_SOON_ATTEMPTS = 24
_MAX_RESULT = 500
_MAX_ERROR = 400
# For one step. Functions have 30 s, webhooks and services their own timeouts; a slow mailbox server
# takes minutes for a large mail.
_STEP_SECONDS = 600.0


class MailAuthenticator(Protocol):
    """Determines the verdicts on a message. A check that fails has a verdict too.

    Raises `StoreUnavailableError` and `OSError` when the content cannot be read now.
    """

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
    """The dependencies and settings of processing.

    `rounds` gives priority to clients. `fails_closed`: a function that is called for its
    disposition and fails ends the rule set.
    """

    store: Store
    clock: Clock
    rule_sets: CompiledRuleSets
    steps: Steps
    authenticator: MailAuthenticator
    bouncing: Bouncing
    rounds: Rounds
    events: EventBus
    backoff: Backoff
    give_up_after: timedelta
    lease: timedelta
    owner: str
    fails_closed: bool = False
    jitter: Callable[[], float] = random_share


class MessageRun:
    """Carries out the steps of one message, beginning behind those that are recorded."""

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
        self._held_for = ""  # the reason, once the message is to be held
        self._unrecorded: dict[Step, StepRecord] = {}
        self._bounces: list[OutboxMessage] = []
        self._concurrent: dict[Step, asyncio.Task[None]] = {}
        self._verdicts: Verdicts | None = None
        if work.lease.processing.verdicts:
            self._verdicts = verdicts_from_json(work.lease.processing.verdicts)
        self._content: Content | None = None

    async def go(self) -> None:
        try:
            await self._go()
        except LeaseLostError:
            log.warning("the lease of %s had passed to another worker", self._message.message_id)
        finally:
            for task in self._concurrent.values():
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
            elif self._concurrent:
                await asyncio.wait(self._concurrent.values(), return_when=asyncio.FIRST_COMPLETED)
                await self._collect()
            else:
                break
        await self._end()

    async def _collect(self) -> None:
        """Record the steps that ran concurrently and have ended."""
        for step, task in list(self._concurrent.items()):
            if task.done():
                del self._concurrent[step]
                task.result()
                await self._record_unless_last()

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
            self._concurrent[step] = asyncio.create_task(self._carry_out(step, task, context))
            return
        await self._carry_out(step, task, context)
        if needs_verdicts(task):
            await self._record_unless_last()

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
            # Not a failure of the target, so it is retried without a limit.
            result = StepResult(StepOutcome.RETRY, f"the store is unavailable: {error}")
            longest = _STORE_RETRY if attempts <= _SOON_ATTEMPTS else _LATER_STORE_RETRY
            due_at = min(self._later(attempts), self._parts.clock.now() + longest)
        except Exception as error:
            log.exception("a step of %s failed", self._message.message_id)
            broken = earlier.broken + 1 if earlier else 1
            result = StepResult(StepOutcome.RETRY, f"internal error: {error!r}")
            due_at = self._later(attempts)
            if broken >= MOST_TRIES:
                where = f"rule {context.planned.rule.name}, {_name(task)}"
                self._held_for = f"{where}, {broken} times: {result.text}"[:_MAX_RESULT]
        self._records[step] = self._unrecorded[step] = StepRecord(
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
        """Carry out a task within `_STEP_SECONDS`. Raises as `Steps.take` does."""
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
        due_at = self._parts.backoff.next_try(attempts, now, last, self._parts.jitter())
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
        wait = self._parts.backoff.wait(attempts, self._parts.jitter())
        return self._parts.clock.now() + wait

    # --- what actions need -----------------------------------------------------------------

    async def _find_verdicts(self) -> None:
        """Determine the verdicts, unless they are recorded."""
        if self._verdicts is not None:
            return
        _, own = split_trace(self._message.header)
        given = self._message.envelope.verdicts
        if given is not None:
            self._verdicts = results_of(given, self._message.envelope, own)
            return
        scan = any(planned.rule.scan_enabled for planned in self._plan)
        try:
            content = await self._read_content()
        except ContentGoneError as error:
            log.warning("%s has no verdicts: %s", self._message.message_id, error)
            self._verdicts = UNKNOWN
            return
        mail = MailToCheck(
            name=self._message.message_id,
            client=self._message.envelope.client,
            reverse_path=self._message.envelope.reverse_path,
            received_at=self._message.received_at,
            content=content.with_header(own),
        )
        self._verdicts = await self._parts.authenticator.authenticate(mail, scan=scan)

    async def _read_content(self) -> Content:
        """Return the message as it is stored.

        Raises `ContentGoneError`, `StoreUnavailableError`.
        """
        if self._content is None:
            store, message = self._parts.store, self._message
            body = self._work.body
            if body is None:
                body = await store.read(FindBody(message.account_id, message.message_id))
            if body is None:
                raise ContentGoneError("the content is not kept any more")
            self._content = await content_of(store, message, body)
        return self._content

    # --- recording -----------------------------------------------------------------------------

    async def _record_unless_last(self) -> None:
        """Record the steps, but leave the last ones to the write that ends the message."""
        is_last = progress(self._plan, self._states).next is None or bool(self._held_for)
        if is_last and not self._concurrent:
            return
        if any(step.outcome is not StepOutcome.RETRY for step in self._unrecorded.values()):
            self._tries = 1  # a result: this lease is the first since
        lease = self._parts.lease
        ends = self._parts.clock.now() + lease + penalty(lease / 3, self._tries - 1)
        await self._record(ProcessingState.QUEUED, ends, keep=True)

    async def _end(self) -> None:
        now = self._parts.clock.now()
        waiting = [
            self._records[step].due_at for step in progress(self._plan, self._states).retries
        ]
        if self._held_for:
            log.error("%s is set aside: %s", self._message.message_id, self._held_for)
            await self._record(ProcessingState.HELD, now, keep=False)
        elif waiting:
            await self._record(ProcessingState.QUEUED, min(waiting), keep=False)
        else:
            await self._record(ProcessingState.DONE, now, keep=False)

    async def _record(self, state: ProcessingState, due_at: datetime, *, keep: bool) -> None:
        """Retry until the store is available: what was done outside must not be lost.

        Raises `LeaseLostError`.
        """
        record = RecordProgress(
            lease=self._lease,
            owner=self._parts.owner,
            steps=tuple(self._unrecorded.values()),
            bounces=tuple(self._bounces),
            verdicts=self._verdicts.to_json() if self._verdicts else None,
            state=state,
            due_at=due_at,
            keep=keep,
            tries=self._tries if keep else 0,
            reason=self._held_for or None,
        )
        self._unrecorded, self._bounces = {}, []
        while True:
            try:
                await self._parts.store.write(record)
                break
            except StoreUnavailableError as error:
                log.warning("the record of %s waits: %s", self._message.message_id, error)
                await asyncio.sleep(_SETTLE_SECONDS)
        self._report(record)

    def _report(self, record: RecordProgress) -> None:
        events = self._parts.events
        for step in record.steps:
            events.publish(reports.step(self._message, step))
        for bounce in record.bounces:
            events.publish(reports.bounce(bounce, "rule"))


def _name(task: Task) -> str:
    return "Notice" if isinstance(task, Notice) else ACTION_TYPES[type(task)]
