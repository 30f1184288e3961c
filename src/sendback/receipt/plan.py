"""The rule engine: the plan of a message's steps, and its next step.

Theory of operation. `make_plan` matches the recipients with the rules once; the plan never
changes. Each planned rule has tasks: its actions in order, and behind an action with a topic the
notice to that topic. A step is one task of one planned rule. The record of steps is a mapping
from step to `StepState`; `progress` follows the plan by this record and returns the next step. It
has no clock and no side effects, so that a worker that takes over a message resumes exactly where
the record ends.

The table of effects:

| the step's task | its state | effect on the walk |
| --- | --- | --- |
| any | not begun | it is the next step |
| a function called for its disposition | retry | all later steps wait |
| any other | retry | continue; its notice waits |
| a function that returned STOP_RULE | done | after its notice, the next rule |
| a stop action, or a function that returned STOP_RULE_SET | done | after its notice, the end |
| any other | done | continue |
| a function called for its disposition | failed, expired | as `disposition_given_up` returns |
| any other | failed, expired, skipped | continue; no notice |

A step's record has the disposition that it counts with. A function that cannot be called counts as
CONTINUE, as in SES, or with the setting `function_failure` as STOP_RULE_SET.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from sendback.mail.address import Address
from sendback.receipt.matching import CompiledRules
from sendback.receipt.model import (
    Action,
    AddHeaderAction,
    Disposition,
    InvocationType,
    LambdaAction,
    Rule,
    SNSAction,
    StopAction,
)

Step = tuple[int, int]  # (number of the rule in its set, number of the task in its rule)


class StepOutcome(StrEnum):
    """The outcome of a step; only `retry` is not final."""

    DONE = "done"
    RETRY = "retry"
    FAILED = "failed"
    EXPIRED = "expired"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class StepState:
    """A step's outcome so far, and the disposition that counts for it."""

    outcome: StepOutcome
    disposition: Disposition = Disposition.CONTINUE


@dataclass(frozen=True, slots=True)
class Notice:
    """The notification to an action's topic that the action was executed."""

    action: Action
    topic_arn: str


Task = Action | Notice


@dataclass(frozen=True, slots=True)
class PlannedRule:
    """A rule that matched, the recipients that it matched, and its tasks."""

    number: int
    rule: Rule
    recipients: tuple[Address, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tasks_of(self.rule)


Plan = tuple[PlannedRule, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """`next` is the step to execute now, or None; `retries` are the steps to try again."""

    next: Step | None
    retries: tuple[Step, ...]


def make_plan(rules: CompiledRules, recipients: Sequence[Address]) -> Plan:
    """Return the matching rules in order, each once with all recipients that it matched."""
    matched: dict[int, list[Address]] = {}
    for recipient in recipients:
        for number in rules.matching(recipient):
            matched.setdefault(number, []).append(recipient)
    return tuple(
        PlannedRule(number, rules.rules[number], tuple(matched[number]))
        for number in sorted(matched)
    )


@lru_cache(maxsize=4096)
def tasks_of(rule: Rule) -> tuple[Task, ...]:
    """Return the rule's actions, each followed by its notice; an SNS action needs none."""
    tasks: list[Task] = []
    for action in rule.actions:
        tasks.append(action)
        if action.topic_arn and not isinstance(action, SNSAction):
            tasks.append(Notice(action, action.topic_arn))
    return tuple(tasks)


def decides(task: Task) -> bool:
    """Whether later steps depend on the result of the task."""
    return (
        isinstance(task, LambdaAction) and task.invocation_type is InvocationType.REQUEST_RESPONSE
    )


def disposition_given_up(task: Task, *, fails_closed: bool) -> Disposition:
    """Return the disposition that counts for a failed or expired task."""
    return Disposition.STOP_RULE_SET if fails_closed and decides(task) else Disposition.CONTINUE


def progress(plan: Plan, states: Mapping[Step, StepState]) -> Progress:
    """Return the next step and the steps to retry."""
    retries: list[Step] = []
    for step, _, state in _walk(plan, states):
        if state is None:
            return Progress(step, tuple(retries))
        if state.outcome is StepOutcome.RETRY:
            retries.append(step)
    return Progress(None, tuple(retries))


def headers_before(
    plan: Plan, states: Mapping[Step, StepState], step: Step
) -> list[AddHeaderAction]:
    """Return the AddHeader actions that took effect before the step, in order."""
    return [
        task
        for earlier, task, state in _walk(plan, states)
        if earlier < step and isinstance(task, AddHeaderAction) and state is not None
    ]


def _walk(
    plan: Plan, states: Mapping[Step, StepState]
) -> Iterator[tuple[Step, Task, StepState | None]]:
    """Yield the steps that the record has reached; a step that is not begun is the last."""
    for planned in plan:
        effect = Disposition.CONTINUE
        for step, task, state in _walk_rule(planned, states):
            yield step, task, state
            if state is None or (state.outcome is StepOutcome.RETRY and decides(task)):
                return
            if not isinstance(task, Notice):
                effect = _effect(task, state)
        if effect is Disposition.STOP_RULE_SET:
            return


def _walk_rule(
    planned: PlannedRule, states: Mapping[Step, StepState]
) -> Iterator[tuple[Step, Task, StepState | None]]:
    """Yield the rule's steps in order; after one that ends the rule, only its notice."""
    action_state: StepState | None = None
    stopped = False
    for number, task in enumerate(planned.tasks):
        step = (planned.number, number)
        if isinstance(task, Notice):
            if action_state and action_state.outcome is StepOutcome.DONE:
                yield step, task, states.get(step)
        elif not stopped:
            action_state = states.get(step)
            yield step, task, action_state
            ends = action_state and _effect(task, action_state) is not Disposition.CONTINUE
            stopped = bool(ends)
        else:
            return


def _effect(task: Task, state: StepState) -> Disposition:
    return Disposition.STOP_RULE_SET if isinstance(task, StopAction) else state.disposition


def step_task(plan: Plan, step: Step) -> tuple[PlannedRule, Task]:
    """Return the rule and the task of a step."""
    planned = next(planned for planned in plan if planned.number == step[0])
    return planned, planned.tasks[step[1]]
