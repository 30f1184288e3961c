"""All verdicts on one message."""

import asyncio
import logging
from dataclasses import replace
from typing import Protocol

from sendback.receipt.verdicts import UNKNOWN, Verdict, Verdicts
from sendback.service.rules.content import MailToCheck

log = logging.getLogger(__name__)


class Authenticator(Protocol):
    """Determines the verdicts of SPF, DKIM and DMARC."""

    async def authenticate(self, mail: MailToCheck) -> Verdicts: ...

    async def close(self) -> None: ...


class Scanner(Protocol):
    """Scans the content of mail."""

    async def scan(self, mail: MailToCheck) -> Verdict: ...


class MailChecks:
    """Implements `service.rules.run.MailAuthenticator`."""

    def __init__(
        self, authenticator: Authenticator | None, spam: Scanner | None, virus: Scanner | None
    ) -> None:
        """The verdicts of a check that is None are DISABLED."""
        self._authenticator = authenticator
        self._spam = spam
        self._virus = virus

    async def authenticate(self, mail: MailToCheck, *, scan: bool) -> Verdicts:
        """Return all verdicts. An exception in one check affects only its own verdict.

        All checks read one copy of a body that is stored elsewhere. Raises `StoreUnavailableError`
        and `OSError` if it cannot be made: the verdicts are not known then, and not failed.
        """
        spam, virus = (self._spam, self._virus) if scan else (None, None)
        if not (self._authenticator or spam or virus):
            return Verdicts(authentication_disabled=True)
        async with mail.content.in_file() as content:
            return await self._examine(replace(mail, content=content), spam, virus)

    async def _examine(
        self, mail: MailToCheck, with_spam: Scanner | None, with_virus: Scanner | None
    ) -> Verdicts:
        authentication, spam, virus = await asyncio.gather(
            self._authenticate(mail), _scan(with_spam, mail), _scan(with_virus, mail)
        )
        return Verdicts(
            spf=authentication.spf,
            dkim=authentication.dkim,
            dmarc=authentication.dmarc,
            spam=spam,
            virus=virus,
            authentication_disabled=authentication.authentication_disabled,
        )

    async def close(self) -> None:
        """End the processes."""
        if self._authenticator is not None:
            await self._authenticator.close()

    async def _authenticate(self, mail: MailToCheck) -> Verdicts:
        if self._authenticator is None:
            return Verdicts(authentication_disabled=True)
        try:
            return await self._authenticator.authenticate(mail)
        except Exception:
            log.exception("%s could not be authenticated", mail.name)
            return UNKNOWN


async def _scan(scanner: Scanner | None, mail: MailToCheck) -> Verdict:
    if scanner is None:
        return Verdict.DISABLED
    try:
        return await scanner.scan(mail)
    except Exception:
        log.exception("%s could not be scanned", mail.name)
        return Verdict.PROCESSING_FAILED
