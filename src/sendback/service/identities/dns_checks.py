"""Checks in DNS what verifies an identity: its token, its DKIM keys, its MAIL FROM domain.

Each process takes the checks that are due, which keeps other processes from taking them. What a
result means is in `dns_status`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sendback.clock import Clock
from sendback.mail.address import identity_name
from sendback.net.dns_answers import DnsFailedError
from sendback.net.resolver import Resolver
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.service.identities.dkim_keys import DnsRecord, is_published
from sendback.service.identities.dns_answers import AnswerState, RecordAnswer, compare
from sendback.service.identities.dns_status import SOONEST, Observation, Presence, updated
from sendback.service.queues.worker import wait_or_poll
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store
from sendback.store.identities.checks import (
    CheckKind,
    FailCheck,
    FindChecks,
    GiveBackCheck,
    IdentityCheck,
    RecordCheck,
    TakeDueChecks,
    TakeSuspectCheck,
)
from sendback.store.identities.dkim_keys import DkimKeyState, FindDkimKeys, MarkSeen
from sendback.store.identities.identities import FindIdentities, VerificationStatus
from sendback.store.identities.settings import FindSettings

log = logging.getLogger(__name__)

_POLL_SECONDS = 10.0
_AT_ONCE = 20
_CLAIM = timedelta(minutes=2)
_SECONDS = 10.0  # for one lookup
_LOOK_SECONDS = 3.0  # for one lookup that a page waits for
_LOOK_LONGEST = 5.0  # for all of them
_LOOKS = 20
_LONGEST = 100.0  # for one check, which has a lookup for each DKIM key; shorter than a claim
MAX_RECORDS = 100
_SHOWN = 200

_Status = VerificationStatus


class IdentityChecks:
    """Makes the checks that are due, and those that an operator requests."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        resolver: Resolver | None,
        *,
        hostname: str,
        at_once: bool = False,
        suspects: asyncio.Lock | None = None,
        events: EventBus | None = None,
    ) -> None:
        """Without a resolver every check fails with that reason.

        `at_once`: identities are verified without a check, so `check` only reports.
        `suspects`: see `service.queues.worker.LeaseWorker`.
        """
        self._suspects = suspects or asyncio.Lock()
        self._store = store
        self._clock = clock
        self._resolver = resolver
        self._hostname = hostname.lower()
        self._at_once = at_once
        self._events = events or EventBus()
        self._threads = ThreadPoolExecutor(4, "identity-checks")
        self._wakes = (asyncio.Event(), asyncio.Event())

    def wake(self) -> None:
        """Look for due checks now: the clock was moved."""
        for wake in self._wakes:
            wake.set()

    async def run(self) -> None:
        """Check until cancelled."""
        for_due, for_suspects = self._wakes
        await asyncio.gather(
            self._repeat(self._check_all_due, for_due),
            self._repeat(self.check_suspects, for_suspects),
        )

    async def _repeat(self, work: Callable[[], Awaitable[None]], wake: asyncio.Event) -> None:
        while True:
            try:
                await work()
            except StoreUnavailableError as error:
                log.warning("identities will be checked again: %s", error)
            except Exception:
                log.exception("checking identities failed, and will be tried again")
            await wait_or_poll(wake, _POLL_SECONDS)

    async def _check_all_due(self) -> None:
        while await self.check_due():
            pass

    async def check_due(self) -> int:
        """Make due checks, at most 20 at once and no suspects; return how many."""
        now = self._clock.now()
        due = await self._store.write(TakeDueChecks(now, now + _CLAIM, _AT_ONCE))
        await asyncio.gather(*(self._check_safely(check) for check in due))
        return len(due)

    async def check_suspects(self) -> None:
        """Make the checks that ended their worker before, one at a time (`engine/leasing`)."""
        while True:
            async with self._suspects:
                now = self._clock.now()
                check = await self._store.write(TakeSuspectCheck(now, now + _CLAIM))
                if check is None:
                    return
                await self._check_safely(check)

    async def check(self, account_id: str, text: str) -> Sequence[IdentityCheck]:
        """Make all checks of an identity now; a failed one begins again as Pending.

        Returns the checks with their results: none for an identity without checks.
        """
        name = identity_name(text)
        now = self._clock.now()
        checks = await self._store.read(FindChecks(account_id, (name,)))
        return await asyncio.gather(*(self._check_now(check, now) for check in checks))

    async def known(self, account_id: str, text: str) -> Sequence[IdentityCheck]:
        """Return the checks of an identity with their last results."""
        return await self._store.read(FindChecks(account_id, (identity_name(text),)))

    async def look_up(self, records: Sequence[DnsRecord]) -> Sequence[RecordAnswer]:
        """Return what DNS answers now for these records, of which the first 20 are queried.

        Takes at most 5 s, and changes no check.
        """
        late = RecordAnswer(AnswerState.UNKNOWN, f"no answer within {_LOOK_LONGEST:.0f} s")
        lookups = [asyncio.create_task(self._look_up(record)) for record in records[:_LOOKS]]
        if not lookups:
            return []
        _, pending = await asyncio.wait(lookups, timeout=_LOOK_LONGEST)
        for lookup in pending:
            lookup.cancel()
        left = [RecordAnswer(AnswerState.UNKNOWN, "not queried")] * (len(records) - len(lookups))
        return [late if lookup in pending else lookup.result() for lookup in lookups] + left

    async def _look_up(self, record: DnsRecord) -> RecordAnswer:
        try:
            answer = compare(record, await self._query(record.name, record.kind, _LOOK_SECONDS))
        except DnsFailedError as error:
            answer = RecordAnswer(AnswerState.UNKNOWN, str(error))
        return replace(answer, text=_printable(answer.text))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _check_safely(self, check: IdentityCheck) -> None:
        """Make a check within `_LONGEST`; record an exception as its failure."""
        now = self._clock.now()
        try:
            async with asyncio.timeout(_LONGEST):
                await self._check(check)
        except StoreUnavailableError:
            await self._store.write(GiveBackCheck(check, now + SOONEST))
        except Exception as error:
            log.exception("the %s check of %s failed", check.kind, check.identity)
            await self._store.write(FailCheck(check, _internal(error), now, _CLAIM / 3))

    async def _check_now(self, check: IdentityCheck, now: datetime) -> IdentityCheck:
        """Make a check within `_LONGEST`; return an exception as its reason."""
        again = _begun_again(check, now)
        try:
            async with asyncio.timeout(_LONGEST):
                return await self._check(check, again, records=not self._at_once)
        except StoreUnavailableError:
            raise
        except Exception as error:
            log.exception("the %s check of %s failed", check.kind, check.identity)
            return replace(again, reason=_internal(error))

    async def _check(
        self, check: IdentityCheck, again: IdentityCheck | None = None, *, records: bool = True
    ) -> IdentityCheck:
        """Make a check; `again` is the one that begins again, if it may have failed."""
        try:
            seen = await self._observe(check)
        except DnsFailedError as error:
            seen = Observation(Presence.UNKNOWN, str(error))
        if not records:
            return replace(again or check, reason=_printable(seen.reason))
        now = self._clock.now()

        def result_of(current: IdentityCheck) -> IdentityCheck:
            begun = _begun_again(current, again.asked_at) if again else current
            result = updated(begun, seen, now)
            return replace(result, reason=_printable(result.reason))

        result = await self._store.write(RecordCheck(check, result_of))
        if result is None:
            return result_of(check)  # it was deleted or requested anew meanwhile
        if result.status is not (again or check).status:
            log.info("%s of %s is %s: %s", check.kind, check.identity, result.status, result.reason)
            self._events.publish(
                reports.identity_event(
                    check.account_id,
                    check.identity,
                    self._clock.now(),
                    f"{check.kind.value.lower()}_checked",
                    result.status.value,
                )
            )
        return result

    async def _observe(self, check: IdentityCheck) -> Observation:
        observe = {
            CheckKind.DOMAIN: self._observe_domain,
            CheckKind.DKIM: self._observe_dkim,
            CheckKind.MAIL_FROM: self._observe_mail_from,
        }
        return await observe[check.kind](check)

    async def _observe_domain(self, check: IdentityCheck) -> Observation:
        unit = FindIdentities(check.account_id, (check.identity,))
        found = await self._store.read(unit)
        if not found:
            return Observation(Presence.UNKNOWN, "the identity is deleted")
        name = domain_record_name(check.identity)
        texts = await self._texts(name)
        if any(text.strip() == found[0].verification_token.encode() for text in texts):
            return Observation(Presence.FOUND)
        return _absent(name, "TXT", texts)

    async def _observe_dkim(self, check: IdentityCheck) -> Observation:
        keys = await self._store.read(FindDkimKeys(check.account_id, (check.identity,)))
        used = [key for key in keys if key.state is not DkimKeyState.RETIRED]
        seen, missing = [], []
        for key in used:
            if is_published(await self._texts(key.record_name), key):
                seen.append(key.selector)
            else:
                missing.append(key)
        now = self._clock.now()
        await self._store.write(MarkSeen(check.account_id, check.identity, seen, now))
        reason = "no such key at " + ", ".join(key.record_name for key in missing)
        if not used or any(key.state is DkimKeyState.ACTIVE for key in missing):
            return Observation(Presence.ABSENT, reason)
        return Observation(Presence.FOUND, reason if missing else "")

    async def _observe_mail_from(self, check: IdentityCheck) -> Observation:
        unit = FindSettings(check.account_id, (check.identity,))
        settings = (await self._store.read(unit)).get(check.identity)
        domain = settings.mail_from_domain if settings else ""
        if not domain:
            return Observation(Presence.UNKNOWN, "there is no MAIL FROM domain")
        records = await self._query(domain, "MX")
        hosts = {str(record.exchange).rstrip(".").lower() for record in records}
        if hosts == {self._hostname}:
            return Observation(Presence.FOUND)
        return _absent(domain, "MX", [host.encode() for host in sorted(hosts)])

    async def _texts(self, name: str) -> list[bytes]:
        return [b"".join(record.strings) for record in await self._query(name, "TXT")]

    async def _query(self, name: str, kind: str, seconds: float = _SECONDS) -> list[Any]:
        """Raises `DnsFailedError`."""
        if self._resolver is None:
            raise DnsFailedError("DNS is off (the setting dns)")
        loop = asyncio.get_running_loop()
        query = loop.run_in_executor(self._threads, self._resolver.query, name, kind, seconds)
        records = await query
        if len(records) > MAX_RECORDS:
            text = f"{name} {kind}: {len(records)} records, at most {MAX_RECORDS} are looked at"
            raise DnsFailedError(text)
        return records


def _begun_again(check: IdentityCheck, now: datetime) -> IdentityCheck:
    """Return the check; a failed one begins again as Pending."""
    if check.status is not _Status.FAILED:
        return check
    return replace(check, status=_Status.PENDING, asked_at=now, away_since=None)


def domain_record_name(domain: str) -> str:
    """Return the name of the TXT record with the domain's token. SES API: VerifyDomainIdentity."""
    return f"_amazonses.{domain}"


def _absent(name: str, kind: str, found: Sequence[bytes]) -> Observation:
    if not found:
        return Observation(Presence.ABSENT, f"there is no {kind} record at {name}")
    texts = ", ".join(text.decode("utf-8", "replace") for text in found)
    return Observation(Presence.ABSENT, f"the {kind} records at {name} are others: {texts}")


def _internal(error: Exception) -> str:
    return _printable(f"internal error: {error!r}")


def _printable(text: str) -> str:
    """Return text from DNS as one line of bounded length."""
    line = "".join(c if c.isprintable() else "�" for c in text)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
