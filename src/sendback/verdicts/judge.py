"""All verdicts on one message, within a budget of time."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from sendback.mail.headers import header_section
from sendback.receipt.verdicts import (
    DkimResult,
    DmarcResult,
    SpfResult,
    Verdict,
    Verdicts,
)
from sendback.resolver import Resolver
from sendback.service.processing import Examined

log = logging.getLogger(__name__)

_THREADS = 32

_FAILED = Verdicts(
    spf=SpfResult("temperror"),
    dkim=(DkimResult("temperror"),),
    dmarc=DmarcResult("temperror"),
)


class Scanner(Protocol):
    """Looks into mail. Never raises."""

    async def scan(self, examined: Examined) -> Verdict: ...


class MailJudge:
    """Implements `processing.Judge`."""

    def __init__(
        self,
        resolver: Resolver | None,
        spam: Scanner | None,
        virus: Scanner | None,
        *,
        seconds: float,
    ) -> None:
        """`seconds` for all look-ups of a message; no resolver: its verdicts are DISABLED."""
        self._resolver = resolver
        self._spam = spam
        self._virus = virus
        self._seconds = seconds
        # Of its own: slow servers hold up nothing but each other.
        self._threads = ThreadPoolExecutor(_THREADS, "verdicts")

    async def judge(self, examined: Examined, *, scan: bool) -> Verdicts:
        authentication, spam, virus = await asyncio.gather(
            self._authenticate(examined),
            _scan(self._spam if scan else None, examined),
            _scan(self._virus if scan else None, examined),
        )
        return Verdicts(
            spf=authentication.spf,
            dkim=authentication.dkim,
            dmarc=authentication.dmarc,
            spam=spam,
            virus=virus,
            authentication_disabled=authentication.authentication_disabled,
        )

    async def _authenticate(self, examined: Examined) -> Verdicts:
        if self._resolver is None:
            return Verdicts(authentication_disabled=True)
        try:
            async with asyncio.timeout(self._seconds + 5):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(
                    self._threads, _authenticate, examined, self._resolver, self._seconds
                )
        except Exception:
            log.exception("a message could not be authenticated")
            return _FAILED


def _authenticate(examined: Examined, resolver: Resolver, seconds: float) -> Verdicts:
    # The libraries take 0.15 s to import, which the first message pays and not the start.
    from sendback.verdicts.authentication import (  # noqa: PLC0415
        Budget,
        check_dkim,
        check_dmarc,
        check_spf,
    )

    budget = Budget(resolver, seconds)
    spf = check_spf(examined, budget)
    dkim = check_dkim(examined, budget)
    dmarc = check_dmarc(header_section(examined.content), spf, dkim, budget)
    return Verdicts(spf=spf, dkim=dkim, dmarc=dmarc)


async def _scan(scanner: Scanner | None, examined: Examined) -> Verdict:
    return Verdict.DISABLED if scanner is None else await scanner.scan(examined)
