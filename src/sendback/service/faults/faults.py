"""Fault rules: managed by users, and asked by the edges before they do what may fail.

An edge looks at `points` first, which costs next to nothing without rules, and calls `inject` for a
point in it.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from sendback.clock import Clock
from sendback.faults.chaos import NAMES as CHAOS_NAMES
from sendback.faults.chaos import parse_chaos, to_chaos
from sendback.faults.model import FaultEvent, FaultRule, Point
from sendback.faults.rules import FaultError, parse_fault
from sendback.log_limits import LogLimiter
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.store.engine.caching import StoreCache
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store
from sendback.store.faults.rules import (
    AddFault,
    ClearFaults,
    CountEvent,
    ListFaults,
    RemoveFault,
    ReplaceFaults,
    StoredFault,
)

log = logging.getLogger(__name__)

_ALL = frozenset(Point)
_NONE: frozenset[Point] = frozenset()


class _Rules:
    """The rules in force, by their points."""

    def __init__(self, rules: Sequence[FaultRule]) -> None:
        self._rules = rules
        self.points = frozenset(rule.at for rule in rules)

    def matching(self, event: FaultEvent) -> tuple[FaultRule, ...]:
        return tuple(rule for rule in self._rules if rule.matches(event))


class Faults:
    """The fault rules of an installation."""

    def __init__(
        self, store: Store, clock: Clock, events: EventBus, *, by_mx: bool, captures: bool
    ) -> None:
        """`by_mx` and `captures` are about outbound mail. By MX, no fault is ever injected."""
        self._store = store
        self._clock = clock
        self._events = events
        self._by_mx = by_mx
        self._captures = captures
        self._rules: StoreCache[None, _Rules] = StoreCache(store.changes, 1)
        self._limiter = LogLimiter()

    # --- the rules ------------------------------------------------------------------------

    @staticmethod
    def from_json(value: Any) -> FaultRule:
        """Return the rule of a JSON object. Raise `FaultError`, an `InvalidInputError`."""
        return parse_fault(value)

    @staticmethod
    def to_json(stored: StoredFault) -> dict[str, Any]:
        """Return the JSON form of a rule, with its counters and its date."""
        return {
            **stored.rule.to_json(),
            "matched": stored.matched,
            "injected": stored.injected,
            "created_at": stored.created_at,
        }

    def check(self, rule: FaultRule) -> None:
        """Raise `FaultError` for a rule that is not permitted with the outbound of the settings."""
        if self._by_mx:
            raise FaultError(
                "faults are refused while outbound is mx, as this server sends real mail"
            )
        if rule.at is Point.DELIVERY and not self._captures:
            raise FaultError(
                "a fault at delivery can never match while outbound is not capture: let the relay "
                "refuse the mail instead"
            )

    async def add(self, rule: FaultRule) -> StoredFault:
        """Add a rule, with a name if it has none; it is in force when this returns.

        Raise `FaultError`, `AlreadyExistsError`, `LimitReachedError`.
        """
        self.check(rule)
        stored = await self._store.write(AddFault(rule, self._clock.now()))
        self._report(f"fault {stored.rule.name} is added")
        return stored

    async def list(self) -> Sequence[StoredFault]:
        """Return the rules in the order in which they are tried."""
        return await self._store.read(ListFaults())

    async def remove(self, name: str) -> None:
        """Remove a rule. Raise `NotFoundError`."""
        await self._store.write(RemoveFault(name))
        self._report(f"fault {name} is removed")

    async def clear(self) -> int:
        """Remove all rules; return how many there were."""
        count = await self._store.write(ClearFaults())
        if count:
            self._report(f"{count} {'fault is' if count == 1 else 'faults are'} removed")
        return count

    async def set_chaos(self, value: Any) -> None:
        """Set Mailpit's chaos triggers. Raise `FaultError`, `LimitReachedError`."""
        rules = parse_chaos(value)
        for rule in rules:
            self.check(rule)
        await self._store.write(ReplaceFaults(CHAOS_NAMES, rules, self._clock.now()))
        self._report("chaos triggers are set")

    async def chaos(self) -> dict[str, dict[str, int]]:
        """Return Mailpit's chaos triggers."""
        return to_chaos([stored.rule for stored in await self.list()])

    def _report(self, change: str) -> None:
        self._events.publish(reports.setting_changed(self._clock.now(), change))

    async def warn(self) -> None:
        """Log a warning if there are rules: when a server starts."""
        names = [stored.rule.name for stored in await self.list()]
        if names and self._by_mx:
            log.warning(
                "faults_ignored names=%s: no fault is injected while outbound is mx; remove them "
                "with `sendback faults clear`",
                ",".join(names),
            )
        elif names:
            log.warning("faults_active names=%s: the server fails on purpose", ",".join(names))

    # --- the decision ---------------------------------------------------------------------

    @property
    def points(self) -> frozenset[Point]:
        """The points that may have rules; all while that is not known."""
        if self._by_mx:
            return _NONE
        known = self._rules.known(None)
        return _ALL if known is None else known.points

    async def inject(self, event: FaultEvent) -> FaultRule | None:
        """Count the event; wait for the delay of the rule that takes effect, and return it.

        Return None if there is none. An event is not counted while the store is unavailable.
        """
        if self._by_mx:
            return None
        try:
            rule = await self._decide(event)
        except StoreUnavailableError as error:
            log.warning("fault_not_decided at=%s reason=%r", event.at, str(error))
            return None
        if rule is None:
            return None
        self._log(rule, event)
        if rule.delay:
            await asyncio.sleep(rule.delay)
        return rule

    async def _decide(self, event: FaultEvent) -> FaultRule | None:
        rules = await self._rules.get(None, self._load)
        matching = rules.matching(event) if rules is not None else ()
        return await self._store.write(CountEvent(matching)) if matching else None

    async def _load(self) -> _Rules:
        return _Rules([stored.rule for stored in await self.list()])

    def _log(self, rule: FaultRule, event: FaultEvent) -> None:
        more = self._limiter.check(rule.name, monotonic())
        if more is not None:
            log.info("fault_injected%s %s", more, _fields(rule, event))


def _fields(rule: FaultRule, event: FaultEvent) -> str:
    found: Mapping[str, object] = {
        "fault": rule.name,
        "at": event.at,
        "effect": repr(rule.effect),
        "client": event.client,
        "sender": event.sender,
        "recipients": ",".join(event.recipients[:3]) or None,
        "operation": event.operation,
        "action": event.action,
    }
    return " ".join(f"{name}={value}" for name, value in found.items() if value is not None)
