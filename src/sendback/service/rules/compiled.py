"""Compiled rule sets: loaded from the store once for each version, and cached."""

from cachetools import LRUCache

from sendback.errors import SendbackError
from sendback.in_flight import InFlight
from sendback.receipt.matching import CompiledRules, compile_rules
from sendback.receipt.model import Rules
from sendback.store.engine.store import Store
from sendback.store.rules.rule_sets import LoadRules

# Counted in recipients and rules: some 100 MB.
_CACHED_CONDITIONS = 400_000


class VersionMissingError(SendbackError):
    """The store has no rules under this version."""


class CompiledRuleSets:
    """Rule sets by version, compiled once: a version never changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: LRUCache[str, CompiledRules] = LRUCache(
            _CACHED_CONDITIONS, getsizeof=lambda compiled: _size(compiled.rules)
        )
        self._loading: InFlight[str, CompiledRules] = InFlight()

    async def get(self, version: str) -> CompiledRules:
        """Return the compiled rules. Raise `VersionMissingError`, `StoreUnavailableError`."""
        found: CompiledRules | None = self._known.get(version)
        return found or await self._loading.share(version, lambda: self._load(version))

    async def _load(self, version: str) -> CompiledRules:
        rules = await self._store.read(LoadRules(version))
        if rules is None:
            raise VersionMissingError(f"the rules of version {version} are gone")
        compiled = compile_rules(rules)
        if _size(rules) <= _CACHED_CONDITIONS:
            self._known[version] = compiled
        return compiled


def _size(rules: Rules) -> int:
    return 1 + sum(1 + len(rule.recipients) for rule in rules)
