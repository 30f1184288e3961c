"""Looking for what DNS has to show: an identity's token, its DKIM keys, its MAIL FROM domain.

Theory of operation. A check begins Pending and is looked for, often at first, until it is found
(Success) or 72 hours are over (Failed: ask again). What was found is looked for once a day. When
it is answered not to be there any more, it stays good for 72 hours (TemporaryFailure, but for a
domain's own token, which SES has no such word for), and is then Failed. A question that gets no
answer proves nothing: it changes no status but that of one that was never found, when its time is
over. Each process looks for what is due; taking it keeps the others from it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Any

from sendback.clock import Clock
from sendback.mail.address import identity_name
from sendback.net.dns_answers import DnsFailedError
from sendback.net.resolver import Resolver
from sendback.service.identities.dkim_keys import is_published
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

PATIENCE = timedelta(hours=72)  # SES developer guide: "up to 72 hours"
_SOONEST, _LATEST = timedelta(minutes=1), timedelta(hours=1)
_REPEAT, _REPEAT_AWAY = timedelta(hours=24), timedelta(hours=1)
_POLL_SECONDS = 10.0
_AT_ONCE = 20
_CLAIM = timedelta(minutes=2)
_SECONDS = 10.0  # for one look-up
_LONGEST = 100.0  # for one check, which has a look-up for each DKIM key; shorter than a claim
MAX_RECORDS = 100
_SHOWN = 200

_Status = VerificationStatus


class Answer(Enum):
    """What DNS said."""

    FOUND = auto()
    ABSENT = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Observation:
    """What DNS said, and why that is not what was looked for."""

    answer: Answer
    reason: str = ""


def judged(check: IdentityCheck, seen: Observation, now: datetime) -> IdentityCheck:
    """The check after an observation. Pure."""
    checked = replace(check, checked_at=now, reason=seen.reason)
    if seen.answer is Answer.FOUND:
        return replace(checked, status=_Status.SUCCESS, away_since=None, due_at=now + _REPEAT)
    if check.status in {_Status.SUCCESS, _Status.TEMPORARY_FAILURE}:
        return _away(checked, seen, now)
    age = now - check.asked_at
    if age >= PATIENCE:
        return replace(checked, status=_Status.FAILED, due_at=None)
    return replace(checked, due_at=now + min(max(age / 10, _SOONEST), _LATEST))


def _away(check: IdentityCheck, seen: Observation, now: datetime) -> IdentityCheck:
    again = replace(check, due_at=now + _REPEAT_AWAY)
    if seen.answer is Answer.UNKNOWN:
        return again
    since = check.away_since or now
    if now - since >= PATIENCE:
        return replace(check, status=_Status.FAILED, away_since=since, due_at=None)
    is_domain = check.kind is CheckKind.DOMAIN
    status = _Status.SUCCESS if is_domain else _Status.TEMPORARY_FAILURE
    return replace(again, status=status, away_since=since)


class IdentityChecks:
    """Looks for what is due, and for what somebody asks about."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        resolver: Resolver | None,
        *,
        hostname: str,
        suspects: asyncio.Lock | None = None,
    ) -> None:
        """Without a resolver nothing can be proved, and every check says so.

        `suspects`: see `leases.LeaseWorker`.
        """
        self._suspects = suspects or asyncio.Lock()
        self._store = store
        self._clock = clock
        self._resolver = resolver
        self._hostname = hostname.lower()
        self._threads = ThreadPoolExecutor(4, "identity-checks")

    async def run(self) -> None:
        """Looks until it is cancelled."""
        await asyncio.gather(self._repeat(self._check_all_due), self._repeat(self.check_suspects))

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except StoreUnavailableError as error:
                log.warning("identities will be checked again: %s", error)
            except Exception:
                log.exception("checking identities failed, and will be tried again")
            await asyncio.sleep(_POLL_SECONDS)

    async def _check_all_due(self) -> None:
        while await self.check_due():
            pass

    async def check_due(self) -> int:
        """Look for what is due, at most 20 at once, no suspects; return how many that was."""
        now = self._clock.now()
        due = await self._store.write(TakeDueChecks(now, now + _CLAIM, _AT_ONCE))
        await asyncio.gather(*(self._look_safely(check) for check in due))
        return len(due)

    async def check_suspects(self) -> None:
        """Look for what had broken whoever looked for it, one at a time (`engine/leasing`)."""
        while True:
            async with self._suspects:
                now = self._clock.now()
                check = await self._store.write(TakeSuspectCheck(now, now + _CLAIM))
                if check is None:
                    return
                await self._look_safely(check)

    async def check(self, account_id: str, text: str) -> Sequence[IdentityCheck]:
        """Looks for all that an identity needs, now; what was given up begins anew.

        Answers the checks as they are then: none for an identity that needs none.
        """
        name = identity_name(text)
        now = self._clock.now()
        checks = await self._store.read(FindChecks(account_id, (name,)))
        again = [
            replace(check, status=_Status.PENDING, asked_at=now, away_since=None)
            if check.status is _Status.FAILED
            else check
            for check in checks
        ]
        return await asyncio.gather(*(self._look_by_hand(check) for check in again))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_safely(self, check: IdentityCheck) -> None:
        """Whatever one check raises, the others go on; and it does not go on for ever."""
        now = self._clock.now()
        try:
            async with asyncio.timeout(_LONGEST):
                await self._look(check)
        except StoreUnavailableError:
            await self._store.write(GiveBackCheck(check, now + _SOONEST))
        except Exception as error:
            log.exception("the %s check of %s failed", check.kind, check.identity)
            await self._store.write(FailCheck(check, _internal(error), now, _CLAIM / 3))

    async def _look_by_hand(self, check: IdentityCheck) -> IdentityCheck:
        """What cannot be found out is the check's reason."""
        try:
            async with asyncio.timeout(_LONGEST):
                return await self._look(check)
        except StoreUnavailableError:
            raise
        except Exception as error:
            log.exception("the %s check of %s failed", check.kind, check.identity)
            return replace(check, reason=_internal(error))

    async def _look(self, check: IdentityCheck) -> IdentityCheck:
        try:
            seen = await self._observe(check)
        except DnsFailedError as error:
            seen = Observation(Answer.UNKNOWN, str(error))
        result = judged(check, seen, self._clock.now())
        result = replace(result, reason=_printable(result.reason))
        await self._store.write(RecordCheck(result))
        if result.status is not check.status:
            log.info("%s of %s is %s: %s", check.kind, check.identity, result.status, result.reason)
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
            return Observation(Answer.UNKNOWN, "the identity is deleted")
        name = domain_record_name(check.identity)
        texts = await self._texts(name)
        if any(text.strip() == found[0].verification_token.encode() for text in texts):
            return Observation(Answer.FOUND)
        return _absent(name, "TXT", texts)

    async def _observe_dkim(self, check: IdentityCheck) -> Observation:
        keys = await self._store.read(FindDkimKeys(check.account_id, (check.identity,)))
        wanted = [key for key in keys if key.state is not DkimKeyState.RETIRED]
        seen, missing = [], []
        for key in wanted:
            if is_published(await self._texts(key.record_name), key):
                seen.append(key.selector)
            else:
                missing.append(key.record_name)
        now = self._clock.now()
        await self._store.write(MarkSeen(check.account_id, check.identity, seen, now))
        if wanted and not missing:
            return Observation(Answer.FOUND)
        return Observation(Answer.ABSENT, "no such key at " + ", ".join(missing))

    async def _observe_mail_from(self, check: IdentityCheck) -> Observation:
        unit = FindSettings(check.account_id, (check.identity,))
        settings = (await self._store.read(unit)).get(check.identity)
        domain = settings.mail_from_domain if settings else ""
        if not domain:
            return Observation(Answer.UNKNOWN, "there is no MAIL FROM domain")
        records = await self._query(domain, "MX")
        hosts = {str(record.exchange).rstrip(".").lower() for record in records}
        if hosts == {self._hostname}:
            return Observation(Answer.FOUND)
        return _absent(domain, "MX", [host.encode() for host in sorted(hosts)])

    async def _texts(self, name: str) -> list[bytes]:
        return [b"".join(record.strings) for record in await self._query(name, "TXT")]

    async def _query(self, name: str, kind: str) -> list[Any]:
        """Raises `DnsFailedError`."""
        if self._resolver is None:
            raise DnsFailedError("DNS is off (the setting dns)")
        loop = asyncio.get_running_loop()
        query = loop.run_in_executor(self._threads, self._resolver.query, name, kind, _SECONDS)
        records = await query
        if len(records) > MAX_RECORDS:
            text = f"{name} {kind}: {len(records)} records, at most {MAX_RECORDS} are looked at"
            raise DnsFailedError(text)
        return records


def domain_record_name(domain: str) -> str:
    """Where the token of a domain is looked for. SES API: VerifyDomainIdentity."""
    return f"_amazonses.{domain}"


def _absent(name: str, kind: str, found: Sequence[bytes]) -> Observation:
    if not found:
        return Observation(Answer.ABSENT, f"there is no {kind} record at {name}")
    texts = ", ".join(text.decode("utf-8", "replace") for text in found)
    return Observation(Answer.ABSENT, f"the {kind} records at {name} are others: {texts}")


def _internal(error: Exception) -> str:
    return _printable(f"internal error: {error!r}")


def _printable(text: str) -> str:
    """What a stranger's DNS says, as one line of bounded length."""
    line = "".join(c if c.isprintable() else "�" for c in text)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"
