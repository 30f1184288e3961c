"""Applies setup files: everything in one is checked first and written in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sendback.aws.errors import shown
from sendback.clock import Clock
from sendback.faults.rules import FaultError
from sendback.mail.address import identity_name
from sendback.receipt.constraints import MAX_FILTERS, MAX_RULE_SETS, rule_set_does_not_exist
from sendback.receipt.plan import tasks_of
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.faults.faults import Faults
from sendback.service.identities.identities import Identities
from sendback.service.rules.filters import too_many_filters
from sendback.service.rules.rule_sets import sender_not_verified, too_many
from sendback.service.rules.setup_file import TABLES, Setup, SetupError, located
from sendback.service.rules.targets import PlannedTargets, Targets, target_of
from sendback.store.engine.errors import LimitReachedError, NotFoundError
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit
from sendback.store.faults.rules import MAX_FAULTS
from sendback.store.identities.identities import MAX_IDENTITIES, Identity
from sendback.store.rules.setup import (
    ActiveDeletion,
    DryRunError,
    SenderNotVerifiedError,
    WriteSetup,
    Written,
)

_LIMITS = {
    "identities of an account": f"An account may have {MAX_IDENTITIES} identities.",
    "rule sets of an account": too_many("rule sets").message,
    "filters of an account": too_many_filters().message,
    "faults": f"There may be {MAX_FAULTS} faults.",
}


@dataclass(frozen=True, slots=True)
class Applied:
    """The changes that were made, and warnings about missing targets: a line each.

    `deletion` is that of the active rule set, if it is among the changes.
    """

    changes: tuple[str, ...]
    warnings: tuple[str, ...]
    deletion: ActiveDeletion | None = None


class SetupService:
    """Applies setups to accounts."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        identities: Identities,
        targets: Targets,
        faults: Faults,
        events: EventBus,
    ) -> None:
        self._store = store
        self._clock = clock
        self._identities = identities
        self._targets = targets
        self._faults = faults
        self._events = events

    async def apply(
        self,
        account_id: str,
        setup: Setup,
        *,
        prune: bool,
        may_delete: frozenset[str] = frozenset(),
        dry_run: bool = False,
    ) -> Applied:
        """Write the setup, and with `prune` delete what it does not name.

        The active rule set is deleted only if it is in `may_delete`. With `dry_run`, everything is
        checked and nothing written. Raises `SetupError`, `ActiveDeletionError`.
        """
        self._check_faults(setup)
        targets = self._targets.planned(setup.targets, prune=prune)
        warnings = await _check_targets(targets, account_id, setup)
        unit = WriteSetup(
            account_id=account_id,
            identities=self._requests(account_id, setup),
            rule_sets=setup.rule_sets,
            active_rule_set=setup.active_rule_set,
            filters=setup.filters,
            targets=setup.targets,
            faults=setup.faults,
            now=self._clock.now(),
            prune=prune,
            max_rule_sets=MAX_RULE_SETS,
            max_filters=MAX_FILTERS,
            may_delete=may_delete,
            dry_run=dry_run,
        )
        written = await self._write(unit)
        if not dry_run:
            self._report(account_id, written)
        requests = (f"identity {i.identity} is {i.status.value}" for i in written.requested)
        return Applied(
            (*requests, *written.changes, *written.faults), tuple(warnings), written.deletion
        )

    def _report(self, account_id: str, written: Written) -> None:
        now = self._clock.now()
        for identity in written.requested:
            self._events.publish(reports.identity_changed(identity, now, "requested"))
        for change in written.changes:
            self._events.publish(reports.setting_changed(now, change, account_id))
        for change in written.faults:
            self._events.publish(reports.setting_changed(now, change))

    def _check_faults(self, setup: Setup) -> None:
        for number, rule in enumerate(setup.faults, 1):
            try:
                self._faults.check(rule)
            except FaultError as error:
                raise SetupError(f"faults[{number}]: {error}") from None

    async def _write(self, unit: WriteSetup) -> Written:
        try:
            return await self._store.write(unit)
        except DryRunError as end:
            return end.written
        except SenderNotVerifiedError as error:
            reason = sender_not_verified(error.sender).message
            where = f"rule_sets.{error.rule_set}: rule {error.rule}"
            raise SetupError(f"{where}: {reason}") from None
        except LimitReachedError as error:
            raise SetupError(_LIMITS[error.kind]) from None
        except NotFoundError as error:
            reason = rule_set_does_not_exist(error.name).message
            raise SetupError(f"active_rule_set: {reason}") from None

    def _requests(self, account_id: str, setup: Setup) -> Mapping[str, Unit[Identity]]:
        """Return the units that request the identities, by name. Raise `SetupError`."""
        requests = {}
        for number, text in enumerate(setup.identities, 1):
            with located(f"identities[{number}]"):
                requests[identity_name(text)] = self._identities.request(account_id, text)
        return requests


async def _check_targets(targets: PlannedTargets, account_id: str, setup: Setup) -> Sequence[str]:
    """Return warnings about missing targets.

    Raise `SetupError` instead where the setting `check_targets` says so.
    """
    warnings = await _local_warnings(targets, account_id, setup)
    if warnings and targets.checks_rules:
        raise SetupError(warnings[0])
    for name, rules in setup.rule_sets.items():
        for number, rule in enumerate(rules, 1):
            with located(f"rule_sets.{name}.rules[{number}]"):
                await targets.check_rule(account_id, rule)
    return [*warnings, *await _unknown_warnings(targets, account_id, setup)]


async def _local_warnings(targets: PlannedTargets, account_id: str, setup: Setup) -> Sequence[str]:
    warnings = []
    for kind, name in setup.targets:
        reason = await targets.check_local(account_id, kind, name)
        if reason is not None:
            warnings.append(f"{TABLES[kind]}.{shown(name)}: {reason}")
    return warnings


async def _unknown_warnings(
    targets: PlannedTargets, account_id: str, setup: Setup
) -> Sequence[str]:
    warnings = []
    for name, rules in setup.rule_sets.items():
        for rule in rules:
            for task in tasks_of(rule):
                wanted = target_of(task)
                if wanted and not await targets.is_known(account_id, *wanted):
                    warnings.append(
                        f"rule {rule.name} of {name}: nothing is known about the "
                        f"{wanted[0]} {wanted[1]}"
                    )
    return list(dict.fromkeys(warnings))
