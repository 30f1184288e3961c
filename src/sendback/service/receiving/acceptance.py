"""Acceptance: which clients may send, and which accounts receive mail for a recipient.

SES developer guide, "Receipt".

Results of the store are cached for a second: an identity, a rule or a filter of new connections
that is changed in another process takes effect within that time. The second is measured in real
time, also with a test clock: it bounds how long two processes may disagree.

The cache entry of a recipient has the compiled rules themselves, so that one lookup is enough. If
there is no entry, the store is read.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from time import monotonic

from cachetools import TTLCache

from sendback.mail.address import Address
from sendback.mail.covering import covering_names
from sendback.receipt.filters import IpFilter, is_admitted
from sendback.receipt.matching import CompiledRules
from sendback.service.rules.compiled import CompiledRuleSets, VersionMissingError
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store
from sendback.store.rules.filters import AllFilters
from sendback.store.rules.rule_sets import FindActiveVersions

log = logging.getLogger(__name__)

_CACHE_SECONDS = 1.0
_CACHED_RECIPIENTS = 10_000


class Refusal(Enum):
    """Why mail for a recipient is refused."""

    UNKNOWN = auto()
    BLOCKED = auto()
    TLS_REQUIRED = auto()


@dataclass(frozen=True, slots=True)
class ActiveRules:
    """An account's active rule set: its name, the version of its rules, and these, compiled."""

    rule_set: str
    version: str
    compiled: CompiledRules


@dataclass(frozen=True, slots=True)
class Receiver:
    """An account that receives the mail, and its active rule set, if any."""

    account_id: str
    active: ActiveRules | None


class Acceptance:
    """Decides about clients and recipients."""

    def __init__(
        self, store: Store, rule_sets: CompiledRuleSets, *, receive_without_rules: bool
    ) -> None:
        self._store = store
        self._rule_sets = rule_sets
        self._receive_without_rules = receive_without_rules
        self._receivers: TTLCache[str, tuple[Receiver, ...]] = TTLCache(
            _CACHED_RECIPIENTS, _CACHE_SECONDS
        )
        self._filters: Mapping[str, tuple[IpFilter, ...]] = {}
        self._filters_until = 0.0

    def clear_cache(self) -> None:
        """Clear the caches."""
        self._receivers.clear()
        self._filters_until = 0.0

    def known_admission(self, client_ip: str) -> bool | None:
        """Return whether the client may send to any account; None if unknown: call `admits`."""
        return self._is_admitted(client_ip) if monotonic() < self._filters_until else None

    async def admits(self, client_ip: str) -> bool:
        """Return whether any account accepts mail from the client.

        Raise `StoreUnavailableError`.
        """
        self._filters = await self._store.read(AllFilters())
        self._filters_until = monotonic() + _CACHE_SECONDS
        return self._is_admitted(client_ip)

    def known_receivers(self, recipient: Address) -> tuple[Receiver, ...] | None:
        """Return the cached receivers; None if there are none in the cache: call `receivers`."""
        found: tuple[Receiver, ...] | None = self._receivers.get(recipient.key)
        return found

    async def receivers(self, recipient: Address) -> tuple[Receiver, ...]:
        """Return the accounts with a verified identity for the recipient.

        Raise `StoreUnavailableError`.
        """
        found = await self._store.read(FindActiveVersions(covering_names(recipient)))
        receivers = []
        for account_id, rule_set, version in found:
            active = None
            if rule_set is not None and version is not None:
                active = ActiveRules(rule_set, version, await self._compiled(version))
            receivers.append(Receiver(account_id, active))
        if receivers:
            self._receivers[recipient.key] = tuple(receivers)
        return tuple(receivers)

    async def _compiled(self, version: str) -> CompiledRules:
        """Return compiled rules. Missing rules are a temporary failure: mail must not be lost."""
        try:
            return await self._rule_sets.get(version)
        except VersionMissingError as error:
            log.error("mail is refused temporarily: %s", error)  # noqa: TRY400 - the trace adds nothing
            raise StoreUnavailableError(str(error)) from error

    def decide(
        self,
        receivers: tuple[Receiver, ...],
        recipient: Address,
        client_ip: str,
        *,
        encrypted: bool,
    ) -> tuple[Receiver, ...] | Refusal:
        """Return those of the accounts that accept the recipient from this client."""
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
        in_clear = tuple(r for r in matched if not _requires_tls(r, recipient))
        return in_clear or Refusal.TLS_REQUIRED

    def _is_admitted(self, client_ip: str) -> bool:
        return not self._filters or any(
            is_admitted(client_ip, entries) for entries in self._filters.values()
        )

    def _admits(self, account_id: str, client_ip: str) -> bool:
        return is_admitted(client_ip, self._filters.get(account_id, ()))

    def _matches(self, receiver: Receiver, recipient: Address) -> bool:
        if receiver.active is None:
            return self._receive_without_rules
        return bool(receiver.active.compiled.matching(recipient))


def _requires_tls(receiver: Receiver, recipient: Address) -> bool:
    return receiver.active is not None and receiver.active.compiled.requires_tls(recipient)
