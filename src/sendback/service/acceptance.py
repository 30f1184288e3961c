"""Acceptance: who may send here, and whose mail a recipient's is. SES developer guide, "Receipt".

What the store answers is good for a second in this process: an identity, rule or filter that is
changed on another node takes effect within that time.
"""

from collections.abc import Mapping
from enum import Enum, auto
from time import monotonic

from sendback.mail.address import Address
from sendback.mail.covering import covering_names
from sendback.receipt.filters import IpFilter, is_admitted
from sendback.receipt.matching import CompiledRules, compile_rules
from sendback.store.filters import AllFilters
from sendback.store.rule_sets import FindReceivers, LoadRules, Receiver
from sendback.store.store import Store

_CACHE_SECONDS = 1.0
_CACHED_RECIPIENTS = 10_000
_CACHED_RULE_SETS = 100


class Refusal(Enum):
    """Why mail for a recipient is not taken."""

    UNKNOWN = auto()
    BLOCKED = auto()
    TLS_REQUIRED = auto()


class CompiledRuleSets:
    """Rule sets by version, compiled once: a version never changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, CompiledRules] = {}

    def known(self, version: str) -> CompiledRules | None:
        return self._known.get(version)

    async def get(self, version: str) -> CompiledRules:
        """Raises `StoreUnavailableError`."""
        found = self._known.get(version)
        if found is None:
            found = compile_rules(await self._store.read(LoadRules(version)))
            if len(self._known) >= _CACHED_RULE_SETS:
                self._known.clear()
            self._known[version] = found
        return found


class Acceptance:
    """Decides on clients and recipients."""

    def __init__(
        self, store: Store, rule_sets: CompiledRuleSets, *, receive_without_rules: bool
    ) -> None:
        self._store = store
        self._rule_sets = rule_sets
        self._receive_without_rules = receive_without_rules
        self._receivers: dict[str, tuple[float, tuple[Receiver, ...]]] = {}
        self._filters: Mapping[str, tuple[IpFilter, ...]] = {}
        self._filters_until = 0.0

    def known_admission(self, client_ip: str) -> bool | None:
        """Whether the client may send here to anybody; None: ask `admits`."""
        return self._is_admitted(client_ip) if monotonic() < self._filters_until else None

    async def admits(self, client_ip: str) -> bool:
        """Whether some account takes mail from the client. Raises `StoreUnavailableError`."""
        self._filters = await self._store.read(AllFilters())
        self._filters_until = monotonic() + _CACHE_SECONDS
        return self._is_admitted(client_ip)

    def known_receivers(self, recipient: Address) -> tuple[Receiver, ...] | None:
        """What `receivers` answered within the last second; None: ask it."""
        known = self._receivers.get(recipient.key)
        if known is None or monotonic() > known[0]:
            return None
        return known[1]

    async def receivers(self, recipient: Address) -> tuple[Receiver, ...]:
        """The accounts with a verified identity that covers it. Raises `StoreUnavailableError`."""
        found = await self._store.read(FindReceivers(covering_names(recipient)))
        for receiver in found:
            if receiver.version is not None:
                await self._rule_sets.get(receiver.version)
        if len(self._receivers) >= _CACHED_RECIPIENTS:
            self._receivers.clear()
        if found:
            self._receivers[recipient.key] = (monotonic() + _CACHE_SECONDS, found)
        return found

    def decide(
        self,
        receivers: tuple[Receiver, ...],
        recipient: Address,
        client_ip: str,
        *,
        encrypted: bool,
    ) -> tuple[Receiver, ...] | Refusal:
        """Of the accounts whose mail it is, those that take it from this client, as it comes."""
        if not receivers:
            return Refusal.UNKNOWN
        admitted = [r for r in receivers if self._admits(r.account_id, client_ip)]
        if not admitted:
            return Refusal.BLOCKED
        matched = tuple(r for r in admitted if self._matches(r, recipient))
        if not matched:
            return Refusal.UNKNOWN
        if encrypted:
            return matched
        in_clear = tuple(r for r in matched if not self._requires_tls(r, recipient))
        return in_clear or Refusal.TLS_REQUIRED

    def _is_admitted(self, client_ip: str) -> bool:
        return not self._filters or any(
            is_admitted(client_ip, entries) for entries in self._filters.values()
        )

    def _admits(self, account_id: str, client_ip: str) -> bool:
        return is_admitted(client_ip, self._filters.get(account_id, ()))

    def _matches(self, receiver: Receiver, recipient: Address) -> bool:
        if receiver.version is None:
            return self._receive_without_rules
        rules = self._rule_sets.known(receiver.version)
        return rules is not None and bool(rules.matching(recipient))

    def _requires_tls(self, receiver: Receiver, recipient: Address) -> bool:
        rules = self._rule_sets.known(receiver.version) if receiver.version else None
        return rules is not None and rules.requires_tls(recipient)
