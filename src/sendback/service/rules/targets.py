"""Targets: the real objects behind the buckets, topics and functions that rules name.

Each account has a mapping (`sendback rules apply`); the settings define the default for a name that
is not mapped: an endpoint, AWS, or nothing.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from sendback.aws.errors import SesError, shown
from sendback.receipt.model import (
    Action,
    ConnectAction,
    LambdaAction,
    Rule,
    S3Action,
    SNSAction,
    WorkmailAction,
)
from sendback.receipt.plan import Notice, Task
from sendback.service.rules.ports import (
    ActionFailedError,
    Functions,
    Mailboxes,
    Objects,
    Topics,
    UnknownTargetError,
)
from sendback.store.engine.store import Store
from sendback.store.rules.targets import FindTarget, FindTargetsWith

BUCKET, TOPIC, FUNCTION, MAILBOX = "bucket", "topic", "function", "mailbox"
KINDS = (BUCKET, TOPIC, FUNCTION, MAILBOX)
DIRECTORY = "directory:"
_LOCAL = (DIRECTORY, "python:", "node:")
_MOST_WARNINGS = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """The implementations, by kind of target."""

    objects: Objects
    topics: Topics
    functions: Functions
    mailboxes: Mailboxes


class Targets:
    """Finds targets and checks that they exist."""

    def __init__(
        self, store: Store, ports: Ports, defaults: Mapping[str, str], *, check_rules: bool
    ) -> None:
        """`defaults` has the target of an unmapped name of each kind; empty or absent: none."""
        self._store = store
        self._ports = ports
        self._defaults = defaults
        self._check_rules = check_rules

    @property
    def checks_rules(self) -> bool:
        """Whether a rule whose targets do not exist is refused (the setting `check_targets`)."""
        return self._check_rules

    def planned(self, mapping: Mapping[tuple[str, str], str], *, prune: bool) -> "PlannedTargets":
        """Return the targets as they will be when `mapping`, by (kind, name), is written.

        With `prune`, what it does not name has only its default.
        """
        return PlannedTargets(
            self._store,
            self._ports,
            self._defaults,
            check_rules=self._check_rules,
            mapping=mapping,
            prune=prune,
        )

    async def find(self, account_id: str, kind: str, name: str) -> str:
        """Return the target of a name. Raise `UnknownTargetError`, `StoreUnavailableError`."""
        target = await self._mapped(account_id, kind, name) or self._defaults.get(kind, "")
        if not target:
            raise UnknownTargetError(
                f"nothing is known about the {kind} {name}: map it with `sendback rules apply`, "
                f"or set {_SETTINGS[kind]}"
            )
        return target

    async def is_known(self, account_id: str, kind: str, name: str) -> bool:
        """Return whether the name has a target. Raise `StoreUnavailableError`."""
        try:
            return bool(await self.find(account_id, kind, name))
        except UnknownTargetError:
            return False

    async def warn_of_files(self) -> None:
        """Log the targets that are files of this node; check that they are here.

        Other nodes of the installation use the same names: each needs the same files. Raise
        `StoreUnavailableError`.
        """
        found = await self._store.read(FindTargetsWith(_LOCAL, _MOST_WARNINGS))
        if found:
            log.warning(
                "targets_of_this_node count=%d first=%r: each node uses its own files: put a "
                "shared directory there, and the same functions on all nodes",
                len(found),
                found[0][2],
            )
        for kind, name, target in found:
            port: Objects | Functions = (
                self._ports.objects if kind == BUCKET else self._ports.functions
            )
            try:
                await port.check(target, name)
            except ActionFailedError as error:
                log.warning("target_missing kind=%s name=%r reason=%r", kind, name, str(error))

    async def check_rule(self, account_id: str, rule: Rule) -> None:
        """Check the targets of a rule, as SES does when a rule is written. Raise `SesError`."""
        if not self._check_rules:
            return
        for action in rule.actions:
            await self._check_action(account_id, action)

    async def _check_action(self, account_id: str, action: Action) -> None:
        if action.topic_arn:
            text = f"Could not publish to SNS topic: {shown(action.topic_arn)}"
            error = SesError("InvalidSnsTopic", text, {"Topic": action.topic_arn})
            await self._check(account_id, TOPIC, action.topic_arn, error)
        if isinstance(action, S3Action):
            text = f"No such bucket: {shown(action.bucket_name)}"
            error = SesError("InvalidS3Configuration", text, {"Bucket": action.bucket_name})
            await self._check(account_id, BUCKET, action.bucket_name, error)
        if isinstance(action, LambdaAction):
            arn = action.function_arn
            text = f"Could not invoke Lambda function: {shown(arn)}"
            error = SesError("InvalidLambdaFunction", text, {"FunctionArn": arn})
            await self._check(account_id, FUNCTION, arn, error)

    async def _mapped(self, account_id: str, kind: str, name: str) -> str | None:
        return await self._store.read(FindTarget(account_id, kind, name))

    async def _check_target(self, account_id: str, kind: str, name: str) -> None:
        """Raises `UnknownTargetError`, `ActionFailedError`."""
        ports: dict[str, Objects | Topics | Functions] = {
            BUCKET: self._ports.objects,
            TOPIC: self._ports.topics,
            FUNCTION: self._ports.functions,
        }
        target = await self.find(account_id, kind, name)
        await ports[kind].check(target, name)

    async def _check(self, account_id: str, kind: str, name: str, error: SesError) -> None:
        try:
            await self._check_target(account_id, kind, name)
        except ActionFailedError as reason:
            if kind == BUCKET and not isinstance(reason, UnknownTargetError):
                text = f"Could not write to bucket: {name}"
                raise SesError(error.code, text, error.members) from reason
            raise error from reason


class PlannedTargets(Targets):
    """Targets with a mapping that is not written yet.

    Each target is checked once, since the rules of a file may name it thousands of times.
    """

    def __init__(
        self,
        store: Store,
        ports: Ports,
        defaults: Mapping[str, str],
        *,
        check_rules: bool,
        mapping: Mapping[tuple[str, str], str],
        prune: bool,
    ) -> None:
        """See `Targets.planned`."""
        super().__init__(store, ports, defaults, check_rules=check_rules)
        self._mapping = mapping
        self._prune = prune
        self._checked: dict[tuple[str, str, str], ActionFailedError | None] = {}

    async def check_local(self, account_id: str, kind: str, name: str) -> str | None:
        """Return why the folder or file that a name is mapped to cannot be used, or None."""
        if not self._mapping[kind, name].startswith(_LOCAL):
            return None
        try:
            await self._check_target(account_id, kind, name)
        except ActionFailedError as error:
            return str(error)
        return None

    async def _mapped(self, account_id: str, kind: str, name: str) -> str | None:
        found = self._mapping.get((kind, name))
        if found is None and not self._prune:
            return await super()._mapped(account_id, kind, name)
        return found

    async def _check_target(self, account_id: str, kind: str, name: str) -> None:
        key = (account_id, kind, name)
        if key not in self._checked:
            try:
                await super()._check_target(*key)
                self._checked[key] = None
            except ActionFailedError as error:
                self._checked[key] = error
        failure = self._checked[key]
        if failure is not None:
            raise failure


def target_of(task: Task) -> tuple[str, str] | None:
    """Return the (kind, name) of the target of a task, or None."""
    match task:
        case Notice() | SNSAction():
            return TOPIC, task.topic_arn
        case S3Action():
            return BUCKET, task.bucket_name
        case LambdaAction():
            return FUNCTION, task.function_arn
        case WorkmailAction():
            return MAILBOX, task.organization_arn
        case ConnectAction():
            return MAILBOX, task.instance_arn
        case _:
            return None


_SETTINGS = {
    BUCKET: "s3_endpoint",
    TOPIC: "sns_endpoint",
    FUNCTION: "lambda_endpoint",
    MAILBOX: "mailbox_server",
}
