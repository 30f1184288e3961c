"""Applies setup files: everything in one is checked first and written in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from sendback.clock import Clock
from sendback.mail.address import identity_name
from sendback.receipt.plan import tasks_of
from sendback.service.identities.identities import Identities
from sendback.service.rules.setup_file import Setup, SetupError
from sendback.service.rules.targets import Targets, target_of
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.store import Store
from sendback.store.rules.setup import SenderNotVerifiedError, WriteSetup


@dataclass(frozen=True, slots=True)
class Applied:
    """The changes that were made, and warnings about missing targets: a line each."""

    changes: tuple[str, ...]
    warnings: tuple[str, ...]


class SetupService:
    """Applies setups to accounts."""

    def __init__(
        self, store: Store, clock: Clock, identities: Identities, targets: Targets
    ) -> None:
        self._store = store
        self._clock = clock
        self._identities = identities
        self._targets = targets

    async def apply(self, account_id: str, setup: Setup, *, prune: bool) -> Applied:
        """Write the setup, and with `prune` delete what it does not name.

        Raises `SetupError`, `SesError`.
        """
        unit = WriteSetup(
            account_id=account_id,
            identities={
                identity_name(text): self._identities.request(account_id, text)
                for text in setup.identities
            },
            rule_sets=setup.rule_sets,
            active_rule_set=setup.active_rule_set,
            filters=setup.filters,
            targets=setup.targets,
            now=self._clock.now(),
            prune=prune,
        )
        try:
            changes = await self._store.write(unit)
        except SenderNotVerifiedError as error:
            raise SetupError(str(error)) from None
        except NotFoundError as error:
            raise SetupError(f"active_rule_set: {error}") from None
        self._identities.wake_delivery()
        return Applied(changes, tuple(await self._warnings(account_id, setup)))

    async def _warnings(self, account_id: str, setup: Setup) -> Sequence[str]:
        warnings = []
        for name, rules in setup.rule_sets.items():
            for rule in rules:
                for task in tasks_of(rule):
                    wanted = target_of(task)
                    if wanted and not await self._targets.is_known(account_id, *wanted):
                        warnings.append(
                            f"rule {rule.name} of {name}: nothing is known about the "
                            f"{wanted[0]} {wanted[1]}"
                        )
        return list(dict.fromkeys(warnings))
