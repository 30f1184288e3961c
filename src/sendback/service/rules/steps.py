"""What each task of a rule does: a table with one function for each kind of task.

A task returns its result or raises `ActionFailedError`; `run` retries and records it and chooses
the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from sendback.aws.errors import SesError
from sendback.clock import Clock
from sendback.dsn.model import Action as DsnAction
from sendback.dsn.model import RecipientFields
from sendback.faults.model import NULL_SENDER, Failure, FaultEvent, Point
from sendback.faults.rules import NOTICE
from sendback.mail.address import Address, parse_mailbox
from sendback.receipt.added_headers import Arrival, published_header
from sendback.receipt.events import (
    MAX_CONTENT_OCTETS,
    SUBJECT,
    MailView,
    ReceiptView,
    function_event,
    notification,
    object_key,
)
from sendback.receipt.model import (
    ACTION_TYPES,
    Action,
    AddHeaderAction,
    BounceAction,
    ConnectAction,
    Disposition,
    InvocationType,
    LambdaAction,
    S3Action,
    SNSAction,
    StopAction,
    WorkmailAction,
)
from sendback.receipt.plan import Notice, PlannedRule, StepOutcome, Task
from sendback.receipt.verdicts import Verdicts
from sendback.service.bouncing.requests import BouncedRecipient, BounceRequest
from sendback.service.bouncing.send_bounce import Bouncing, SilentError
from sendback.service.faults.faults import Faults
from sendback.service.heavy import HeavyWork
from sendback.service.rules.content import Content, ContentGoneError
from sendback.service.rules.ports import ActionFailedError
from sendback.service.rules.rounds import Rounds
from sendback.service.rules.targets import Ports, Targets, target_of
from sendback.store.messages.messages import ReceivedMessage
from sendback.store.outbox.rows import OutboxMessage

_MAX_RESULT = 500
# Events of a larger header or content are composed in a thread.
_HEAVY_OCTETS = 16 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepContext:
    """A message at one step: its envelope and header, its verdicts, the headers added so far.

    `read_content` returns the message as it is stored; it may raise `ContentGoneError`.
    """

    message: ReceivedMessage
    read_content: Callable[[], Awaitable[Content]]
    planned: PlannedRule
    verdicts: Verdicts
    added: Sequence[AddHeaderAction]

    @property
    def scanned(self) -> bool:
        return self.planned.rule.scan_enabled


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of a task: its final outcome, a line of text, a bounce to be queued."""

    outcome: StepOutcome
    text: str
    disposition: Disposition = Disposition.CONTINUE
    bounce: OutboxMessage | None = None


def needs_verdicts(task: Task) -> bool:
    """Return whether the output of the task contains the verdicts."""
    return not isinstance(task, AddHeaderAction | StopAction | BounceAction)


class Steps:
    """Carries out tasks."""

    def __init__(
        self,
        ports: Ports,
        targets: Targets,
        bouncing: Bouncing,
        heavy: HeavyWork,
        rounds: Rounds,
        clock: Clock,
        faults: Faults,
        hostname: str,
    ) -> None:
        self._ports = ports
        self._targets = targets
        self._bouncing = bouncing
        self._heavy = heavy
        self._rounds = rounds
        self._clock = clock
        self._faults = faults
        self._hostname = hostname

    async def take(self, task: Task, context: StepContext) -> StepResult:
        """Raises `ActionFailedError`, `StoreUnavailableError`."""
        if Point.ACTION in self._faults.points:
            await self._inject(task, context)
        try:
            return await _TASKS[type(task)](self, task, context)
        except ContentGoneError as error:
            raise ActionFailedError(str(error), final=True) from error

    async def _inject(self, task: Task, context: StepContext) -> None:
        """Inject a fault, if there is one for this task. Raises `ActionFailedError`."""
        address = context.message.envelope.reverse_path.address
        rule = await self._faults.inject(
            FaultEvent(
                Point.ACTION,
                sender=NULL_SENDER if address is None else address.key,
                recipients=tuple(recipient.key for recipient in context.planned.recipients),
                action=NOTICE if isinstance(task, Notice) else ACTION_TYPES[type(task)],
            )
        )
        if rule is not None and rule.failure is not None:
            text = f"injected ({rule.name}): {rule.text or f'{rule.failure} failure'}"
            raise ActionFailedError(text, final=rule.failure is Failure.PERMANENT)

    # --- without an outside effect ----------------------------------------------------------------

    async def _add_header(self, task: AddHeaderAction, _: StepContext) -> StepResult:
        return _done(f"{task.header_name}: {task.header_value}")

    async def _stop(self, _task: StopAction, _: StepContext) -> StepResult:
        return _done("the rule set ends here")

    async def _bounce(self, task: BounceAction, context: StepContext) -> StepResult:
        return await self._send_bounce(context, _bounce_request(task, context))

    async def _send_bounce(self, context: StepContext, request: BounceRequest) -> StepResult:
        try:
            bounce = await self._bouncing.by_rule(context.message, request)
        except SilentError as reason:
            return StepResult(StepOutcome.SKIPPED, f"no bounce: {reason}")
        except SesError as error:
            raise ActionFailedError(error.message, final=True) from error
        text = f"bounce {bounce.message_id} to {bounce.recipient}"
        return StepResult(StepOutcome.DONE, text, bounce=bounce)

    # --- through the ports ------------------------------------------------------------------

    async def _store(self, task: S3Action, context: StepContext) -> StepResult:
        key = object_key(task, context.message.message_id)
        target = await self._target(task, context)
        content = await self._content(context)
        return _done(await self._ports.objects.put(target, task.bucket_name, key, content))

    async def _publish(self, task: SNSAction, context: StepContext) -> StepResult:
        message = context.message
        header = await self._header(context)
        size = len(header) + message.size - len(message.header)
        if size > MAX_CONTENT_OCTETS:
            # SES quotas: "the mail bounces". Its body is not read for that.
            return await self._send_bounce(context, _too_large(context))
        stored = await context.read_content()
        content = await asyncio.to_thread(stored.with_header(header).read)
        mail, receipt = self._mail(context, header), self._receipt(task, context)
        text = await self._composed(size, lambda: notification(mail, receipt, content))
        return await self._tell(task, text, context)

    async def _notify(self, task: Notice, context: StepContext) -> StepResult:
        header = await self._header(context)
        mail, receipt = self._mail(context, header), self._receipt(task.action, context)
        text = await self._composed(len(header), lambda: notification(mail, receipt))
        return await self._tell(task, text, context)

    async def _tell(self, task: SNSAction | Notice, text: str, context: StepContext) -> StepResult:
        target = await self._target(task, context)
        return _done(await self._ports.topics.publish(target, task.topic_arn, SUBJECT, text))

    async def _call(self, task: LambdaAction, context: StepContext) -> StepResult:
        header = await self._header(context)
        mail, receipt = self._mail(context, header), self._receipt(task, context)
        event = await self._composed(len(header), lambda: function_event(mail, receipt))
        target = await self._target(task, context)
        wait = task.invocation_type is InvocationType.REQUEST_RESPONSE
        answer = await self._ports.functions.invoke(target, task.function_arn, event, wait=wait)
        if not wait:
            return _done("called")
        disposition = read_disposition(answer)
        return StepResult(StepOutcome.DONE, f"answered {disposition}", disposition)

    async def _deliver(
        self, task: WorkmailAction | ConnectAction, context: StepContext
    ) -> StepResult:
        target = await self._target(task, context)
        content = await self._content(context)
        sender = str(context.message.envelope.reverse_path)
        recipients = [str(address) for address in context.planned.recipients]
        return _done(await self._ports.mailboxes.deliver(target, sender, recipients, content))

    async def _target(self, task: Task, context: StepContext) -> str:
        wanted = target_of(task)
        if wanted is None:
            raise ValueError(f"{type(task).__name__} has no target")
        return await self._targets.find(context.message.account_id, *wanted)

    # --- output ------------------------------------------------------------------

    async def _composed(self, octets: int, compose: Callable[[], T]) -> T:
        await self._rounds.next()
        return await self._heavy.run(compose, heavy=octets > _HEAVY_OCTETS)

    async def _header(self, context: StepContext) -> bytes:
        message = context.message
        client = message.envelope.client
        arrival = Arrival(
            message_id=message.message_id,
            hostname=self._hostname,
            client_ip=client.ip,
            helo=client.helo,
            reverse_path=str(message.envelope.reverse_path),
        )
        verdicts, added, scanned = context.verdicts, context.added, context.scanned
        return await self._composed(
            len(message.header),
            lambda: published_header(message.header, arrival, verdicts, added, scanned=scanned),
        )

    async def _content(self, context: StepContext) -> Content:
        return (await context.read_content()).with_header(await self._header(context))

    @staticmethod
    def _mail(context: StepContext, header: bytes) -> MailView:
        envelope = context.message.envelope
        return MailView(
            message_id=context.message.message_id,
            received_at=context.message.received_at,
            source=str(envelope.reverse_path),
            destination=tuple(str(entry.address) for entry in envelope.recipients),
            header=header,
        )

    def _receipt(self, action: Action, context: StepContext) -> ReceiptView:
        now: datetime = self._clock.now()
        key = None
        if isinstance(action, S3Action):
            key = object_key(action, context.message.message_id)
        recipients = tuple(str(address) for address in context.planned.recipients)
        return ReceiptView(now, recipients, context.verdicts, context.scanned, action, key)


def read_disposition(answer: object) -> Disposition:
    """SES developer guide, "Lambda action": case-insensitive; anything else is CONTINUE."""
    value = answer.get("disposition") if isinstance(answer, dict) else None
    try:
        return Disposition(value.upper()) if isinstance(value, str) else Disposition.CONTINUE
    except ValueError:
        return Disposition.CONTINUE


def _done(text: str) -> StepResult:
    return StepResult(StepOutcome.DONE, text[:_MAX_RESULT])


def _bounce_request(task: BounceAction, context: StepContext) -> BounceRequest:
    """One DSN for all recipients that the rule matched; the rule states reply and status."""
    status = task.status_code or f"{task.smtp_reply_code[0]}.0.0"
    stated = [code for code in (task.smtp_reply_code, task.status_code) if code]
    sender = parse_mailbox(task.sender).address
    return _request(context, task.sender, sender, status, " ".join([*stated, task.message]))


def _too_large(context: StepContext) -> BounceRequest:
    """Return the bounce of an SNS action, in the name of the recipient's domain."""
    sender = Address("MAILER-DAEMON", context.planned.recipients[0].domain)
    reply = "552 5.3.4 Message too large"
    return _request(context, str(sender), sender, "5.3.4", reply)


def _request(
    context: StepContext, sender: str, address: Address, status: str, reply: str
) -> BounceRequest:
    first, *others = context.planned.recipients
    fields = RecipientFields(
        final_recipient=first,
        action=DsnAction.FAILED,
        status=status,
        diagnostic_code=f"smtp; {reply}",
        last_attempt_date=context.message.received_at,
    )
    return BounceRequest(
        original_message_id=context.message.message_id,
        sender=sender,
        sender_address=address,
        recipients=(
            BouncedRecipient(first, fields=fields),
            *(BouncedRecipient(to, fields=replace(fields, final_recipient=to)) for to in others),
        ),
    )


_Take = Callable[..., Awaitable[StepResult]]
_TASKS: dict[type[Task], _Take] = {
    AddHeaderAction: Steps._add_header,  # noqa: SLF001 - its own table
    StopAction: Steps._stop,  # noqa: SLF001
    BounceAction: Steps._bounce,  # noqa: SLF001
    S3Action: Steps._store,  # noqa: SLF001
    SNSAction: Steps._publish,  # noqa: SLF001
    Notice: Steps._notify,  # noqa: SLF001
    LambdaAction: Steps._call,  # noqa: SLF001
    WorkmailAction: Steps._deliver,  # noqa: SLF001
    ConnectAction: Steps._deliver,  # noqa: SLF001
}
