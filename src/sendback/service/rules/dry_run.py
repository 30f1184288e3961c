"""A dry run of the rules for a mail, without side effects: `sendback rules test`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sendback.clock import Clock
from sendback.mail.address import Address
from sendback.mail.covering import covering_names
from sendback.mail.envelope import Envelope
from sendback.mail.headers import read_header
from sendback.mail.loops import reason_for_silence
from sendback.receipt.events import object_key
from sendback.receipt.filters import is_admitted
from sendback.receipt.matching import CompiledRules, compile_rules
from sendback.receipt.model import (
    ACTION_TYPES,
    Action,
    AddHeaderAction,
    BounceAction,
    ConnectAction,
    LambdaAction,
    S3Action,
    SNSAction,
    StopAction,
    WorkmailAction,
)
from sendback.receipt.plan import (
    Notice,
    Plan,
    Step,
    StepOutcome,
    StepState,
    Task,
    make_plan,
    progress,
    step_task,
)
from sendback.receipt.verdicts import Verdict
from sendback.redaction import without_users
from sendback.service.rules.content import Content, MailToCheck
from sendback.service.rules.ports import UnknownTargetError
from sendback.service.rules.run import MailAuthenticator
from sendback.service.rules.targets import Targets, target_of
from sendback.store.engine.store import Store
from sendback.store.identities.identities import IsVerified
from sendback.store.rules.filters import ListFilters
from sendback.store.rules.rule_sets import RuleSet


@dataclass(frozen=True, slots=True)
class DryRunStep:
    """One step that would be taken."""

    rule: str
    action: str
    recipients: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class DryRunResult:
    """The SMTP reply to each recipient, the verdicts, and the steps."""

    recipients: dict[str, str]
    verdicts: dict[str, Verdict]
    steps: tuple[DryRunStep, ...]


class DryRun:
    """Runs mails through rules without any effect."""

    def __init__(
        self, store: Store, clock: Clock, targets: Targets, authenticator: MailAuthenticator
    ) -> None:
        self._store = store
        self._clock = clock
        self._targets = targets
        self._authenticator = authenticator

    async def run(
        self, account_id: str, rule_set: RuleSet, envelope: Envelope, content: bytes
    ) -> DryRunResult:
        """Return the result, with CONTINUE from every function. Raise `StoreUnavailableError`."""
        rules = compile_rules(rule_set.rules)
        replies = {
            str(entry.address): await self._answer(account_id, rules, entry.address, envelope)
            for entry in envelope.recipients
        }
        accepted = [
            entry.address
            for entry in envelope.recipients
            if replies[str(entry.address)].startswith("250")
        ]
        plan = make_plan(rules, accepted)
        header, body = _read(content)
        mail = MailToCheck(
            name="the mail",
            client=envelope.client,
            reverse_path=envelope.reverse_path,
            received_at=self._clock.now(),
            content=Content(header, body, len(body)),
        )
        scan = any(planned.rule.scan_enabled for planned in plan)
        found = await self._authenticator.authenticate(mail, scan=scan)
        verdicts = found.statuses(scanned=scan)
        steps = [
            await self._step(account_id, plan, step, envelope, header) for step in _steps(plan)
        ]
        return DryRunResult(replies, verdicts, tuple(steps))

    async def _answer(
        self, account_id: str, rules: CompiledRules, recipient: Address, envelope: Envelope
    ) -> str:
        filters = await self._store.read(ListFilters(account_id))
        if not is_admitted(envelope.client.ip, filters):
            return "554 5.7.1 an IP filter blocks the client"
        if not await self._store.read(IsVerified(account_id, covering_names(recipient))):
            return "550 5.1.1 no verified identity covers it"
        if not rules.matching(recipient):
            return "550 5.1.1 no enabled rule matches it"
        if envelope.client.tls is None and rules.requires_tls(recipient):
            return "530 5.7.0 a rule requires TLS"
        return "250 2.1.5 accepted"

    async def _step(
        self, account_id: str, plan: Plan, step: Step, envelope: Envelope, header: bytes
    ) -> DryRunStep:
        planned, task = step_task(plan, step)
        text = _text(task, envelope, header)
        wanted = target_of(task)
        if wanted:
            try:
                target = await self._targets.find(account_id, *wanted)
                text += f", at {without_users(target)}"
            except UnknownTargetError as error:
                text += f"; FAILS: {error}"
        name = "Notice" if isinstance(task, Notice) else ACTION_TYPES[type(task)]
        recipients = tuple(str(address) for address in planned.recipients)
        return DryRunStep(planned.rule.name, name, recipients, text)


def _read(content: bytes) -> tuple[bytes, bytes]:
    """Return the header section and the body, read as those of a received message."""
    reading = read_header(content, is_whole=True)
    if reading is None:  # a whole mail is complete
        raise ValueError("the header section does not end")
    return reading.header, reading.gap + content[reading.octets :]


def _steps(plan: Plan) -> Sequence[Step]:
    """Return all steps, assuming that each succeeds."""
    states: dict[Step, StepState] = {}
    while True:
        step = progress(plan, states).next
        if step is None:
            return list(states)
        states[step] = StepState(StepOutcome.DONE)


def _text(task: Task, envelope: Envelope, header: bytes) -> str:
    if isinstance(task, Notice):
        return f"publishes to {task.topic_arn} that {ACTION_TYPES[type(task.action)]} was done"
    if isinstance(task, BounceAction):
        return _bounce_text(task, envelope, header)
    return _TEXTS[type(task)](task)


def _bounce_text(task: BounceAction, envelope: Envelope, header: bytes) -> str:
    reason = reason_for_silence(header)
    if envelope.reverse_path.address is None:
        reason = "it has a null reverse-path"
    if reason:
        return f"no bounce: {reason}"
    status = f" {task.status_code}" if task.status_code else ""
    return (
        f"bounces to {envelope.reverse_path} from {task.sender}: "
        f"{task.smtp_reply_code}{status} {task.message}"
    )


# A new action without a text fails the test of all actions.
_TEXTS: dict[type[Action], Callable[[Any], str]] = {
    AddHeaderAction: lambda action: f"adds {action.header_name}: {action.header_value}",
    StopAction: lambda _: "ends the rule set",
    S3Action: lambda action: f"stores {object_key(action, 'MESSAGE-ID')} in {action.bucket_name}",
    LambdaAction: lambda action: f"calls {action.function_arn} ({action.invocation_type})",
    SNSAction: lambda action: f"publishes the mail to {action.topic_arn}",
    WorkmailAction: lambda action: f"delivers the mail to {action.organization_arn}",
    ConnectAction: lambda action: f"delivers the mail to {action.instance_arn}",
}
