"""Acceptance: which clients may send, and which accounts receive mail for a recipient.

SES developer guide, "Receipt".

Each client and each recipient is decided by what the store has at that moment: a change is in
force when its call has returned, in another process within a second (`store/engine/changes.py`).

The cache entry of a recipient has the compiled rules themselves, so that one lookup is enough. If
there is no entry, the store is read.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from sendback.mail.address import Address
from sendback.mail.covering import covering_names
from sendback.receipt.filters import IpFilter, is_admitted
from sendback.receipt.matching import CompiledRules
from sendback.service.rules.compiled import CompiledRuleSets, VersionMissingError
from sendback.store.engine.caching import StoreCache
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store
from sendback.store.rules.filters import AllFilters
from sendback.store.rules.rule_sets import FindActiveVersions

log = logging.getLogger(__name__)

_CACHED_RECIPIENTS = 10_000


# The filters of each account, by its ID.
Filters: TypeAlias = Mapping[str, tuple[IpFilter, ...]]


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


Decision: TypeAlias = tuple[Receiver, ...] | Refusal


class Acceptance:
    """Decides about clients and recipients."""

    def __init__(
        self, store: Store, rule_sets: CompiledRuleSets, *, receive_without_rules: bool
    ) -> None:
        self._store = store
        self._rule_sets = rule_sets
        self._receive_without_rules = receive_without_rules
        self._receivers: StoreCache[str, tuple[Receiver, ...]] = StoreCache(
            store.changes, _CACHED_RECIPIENTS
        )
        self._filters: StoreCache[None, Filters] = StoreCache(store.changes, 1)

    def known_admission(self, client_ip: str) -> bool | None:
        """Return whether the client may send to any account; None if unknown: call `admits`."""
        filters = self._filters.known(None)
        return None if filters is None else _is_admitted(filters, client_ip)

    async def admits(self, client_ip: str) -> bool:
        """Return whether any account accepts mail from the client.

        Raise `StoreUnavailableError`.
        """
        return _is_admitted(await self._all_filters(), client_ip)

    def known_decision(
        self, recipient: Address, client_ip: str, *, encrypted: bool
    ) -> Decision | None:
        """Return the decision on a recipient; None if it is not known: call `decide`."""
        filters, receivers = self._filters.known(None), self._receivers.known(recipient.key)
        if filters is None or receivers is None:
            return None
        return self._decide(filters, receivers, recipient, client_ip, encrypted=encrypted)

    async def decide(self, recipient: Address, client_ip: str, *, encrypted: bool) -> Decision:
        """Return the accounts that accept the recipient's mail from this client, or why none does.

        Raise `StoreUnavailableError`.
        """
        filters = await self._all_filters()
        found = await self._receivers.get(recipient.key, lambda: self._find_receivers(recipient))
        return self._decide(filters, found or (), recipient, client_ip, encrypted=encrypted)

    async def _all_filters(self) -> Filters:
        found = await self._filters.get(None, lambda: self._store.read(AllFilters()))
        return found or {}

    async def _find_receivers(self, recipient: Address) -> tuple[Receiver, ...] | None:
        """Return the accounts with a verified identity for the recipient; None: there are none.

        Unknown recipients are not cached: their number has no bound.
        """
        found = await self._store.read(FindActiveVersions(covering_names(recipient)))
        receivers = []
        for account_id, rule_set, version in found:
            active = None
            if rule_set is not None and version is not None:
                active = ActiveRules(rule_set, version, await self._compiled(version))
            receivers.append(Receiver(account_id, active))
        return tuple(receivers) or None

    async def _compiled(self, version: str) -> CompiledRules:
        """Return compiled rules. Missing rules are a temporary failure: mail must not be lost."""
        try:
            return await self._rule_sets.get(version)
        except VersionMissingError as error:
            log.error("mail is refused temporarily: %s", error)  # noqa: TRY400 - the trace adds nothing
            raise StoreUnavailableError(str(error)) from error

    def _decide(
        self,
        filters: Filters,
        receivers: tuple[Receiver, ...],
        recipient: Address,
        client_ip: str,
        *,
        encrypted: bool,
    ) -> Decision:
        if not receivers:
            return Refusal.UNKNOWN
        admitted = [r for r in receivers if is_admitted(client_ip, filters.get(r.account_id, ()))]
        if not admitted:
            return Refusal.BLOCKED
        matched = tuple(r for r in admitted if self._matches(r, recipient))
        if not matched:
            return Refusal.UNKNOWN
        if encrypted:
            return matched
        in_clear = tuple(r for r in matched if not _requires_tls(r, recipient))
        return in_clear or Refusal.TLS_REQUIRED

    def _matches(self, receiver: Receiver, recipient: Address) -> bool:
        if receiver.active is None:
            return self._receive_without_rules
        return bool(receiver.active.compiled.matching(recipient))


def _is_admitted(filters: Filters, client_ip: str) -> bool:
    return not filters or any(is_admitted(client_ip, entries) for entries in filters.values())


def _requires_tls(receiver: Receiver, recipient: Address) -> bool:
    return receiver.active is not None and receiver.active.compiled.requires_tls(recipient)
