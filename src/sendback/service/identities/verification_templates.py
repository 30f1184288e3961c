"""Templates of verification mails, and mails by a template.

SES API: the operations named …CustomVerificationEmail…. The order of checks and the texts are those
of the live service where a record of them exists.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from sendback.aws.errors import SesError, identities_failed, shown
from sendback.mail.address import AddressError, parse_address, parse_mailbox
from sendback.mail.covering import covering_names
from sendback.service.identities.identities import Identities, invalid_address
from sendback.service.identities.verification import Verification
from sendback.service.paging import make_token, read_token
from sendback.store.engine.errors import AlreadyExistsError, LimitReachedError
from sendback.store.engine.store import Store
from sendback.store.identities.identities import IsVerified
from sendback.store.identities.verification_templates import (
    AddTemplate,
    ChangeTemplate,
    DeleteTemplate,
    FindTemplate,
    ListTemplates,
    VerificationTemplate,
)

MAX_TEMPLATES = 50  # SES quotas
MAX_PAGE = 50
MAX_CONTENT_OCTETS = 10 * 2**20  # SES API: "must be less than 10 MB"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TemplatePage:
    """One page, and the token of the next one if there is one."""

    templates: Sequence[VerificationTemplate]
    next_token: str | None


class VerificationTemplates:
    """The templates of all accounts."""

    def __init__(
        self, store: Store, identities: Identities, verification: Verification, region: str
    ) -> None:
        self._store = store
        self._identities = identities
        self._verification = verification
        self._region = region

    async def create(self, template: VerificationTemplate) -> None:
        """Raises `SesError`."""
        if not _NAME.fullmatch(template.name):
            raise SesError("InvalidParameterValue", f"Invalid template name <{template.name}>")
        await self._check(template)
        try:
            await self._store.write(AddTemplate(template, MAX_TEMPLATES))
        except LimitReachedError:
            text = f"An account may have {MAX_TEMPLATES} templates."
            raise SesError("LimitExceeded", text) from None
        except AlreadyExistsError:
            raise SesError(
                "CustomVerificationEmailTemplateAlreadyExists",
                f"Custom verification email template <{template.name}> already exists",
                {"CustomVerificationEmailTemplateName": template.name},
            ) from None

    async def update(self, account_id: str, name: str, given: Mapping[str, str]) -> None:
        """`given` has the fields of `VerificationTemplate` that change. Raises `SesError`."""
        template = replace(await self.get(account_id, name), **given)
        await self._check(template)
        if not await self._store.write(ChangeTemplate(account_id, name, given)):
            raise _does_not_exist(name)

    async def get(self, account_id: str, name: str) -> VerificationTemplate:
        """Raises `SesError`."""
        found = await self._store.read(FindTemplate(account_id, name))
        if found is None:
            raise _does_not_exist(name)
        return found

    async def delete(self, account_id: str, name: str) -> None:
        """Raises `SesError`."""
        if not await self._store.write(DeleteTemplate(account_id, name)):
            raise _does_not_exist(name)

    async def list(self, account_id: str, token: str | None, limit: int) -> TemplatePage:
        """Return one page of at most `limit`. Raise `SesError` for a malformed token."""
        after = read_token(token) if token else ""
        found = await self._store.read(ListTemplates(account_id, after, limit + 1))
        more = len(found) > limit
        return TemplatePage(found[:limit], make_token(found[limit - 1].name) if more else None)

    async def send(
        self, account_id: str, address: str, name: str, configuration_set: str | None
    ) -> str:
        """Send the verification mail to an address and return its MessageId.

        Raise `SesError`: for an invalid address, a missing template, an unverified sender of the
        template, a configuration set (there are none), in this order as in the live service.
        """
        try:
            parse_address(address)
        except AddressError:
            raise invalid_address(address) from None
        template = await self._store.read(FindTemplate(account_id, name))
        if template is None:
            raise _does_not_exist(name, f"Template <{shown(name)}> does not exist")
        if not await self._may_send(template):
            raise SesError(
                "FromEmailAddressNotVerified",
                identities_failed(template.from_address, self._region),
                {"FromEmailAddress": template.from_address},
            )
        if configuration_set:
            raise SesError(
                "ConfigurationSetDoesNotExist",
                f"Configuration set <{shown(configuration_set)}> does not exist.",
                {"ConfigurationSetName": configuration_set},
            )
        mail = await self._identities.verify_by(
            account_id,
            address,
            lambda identity, to: self._verification.custom_mail(identity, to, template),
        )
        return mail.message_id

    async def _check(self, template: VerificationTemplate) -> None:
        if not await self._may_send(template):
            raise SesError(
                "FromEmailAddressNotVerified",
                f"The from email address <{template.from_address}> is not verified",
                {"FromEmailAddress": template.from_address},
            )
        for url, name in ((template.success_url, "success"), (template.failure_url, "failure")):
            if not _is_web_url(url):
                raise SesError("InvalidParameterValue", f"The {name} redirection URL is invalid")
        if not template.subject.isprintable():
            raise SesError(
                "CustomVerificationEmailInvalidContent",
                "The subject must be one line without control characters",
            )
        if len(template.content.encode()) > MAX_CONTENT_OCTETS:
            raise SesError(
                "CustomVerificationEmailInvalidContent", "The content is larger than 10 MB"
            )

    async def _may_send(self, template: VerificationTemplate) -> bool:
        try:
            address = parse_mailbox(template.from_address).address
        except AddressError:
            return False
        if address.needs_smtputf8:
            return False
        return await self._store.read(IsVerified(template.account_id, covering_names(address)))


def _does_not_exist(name: str, text: str = "") -> SesError:
    return SesError(
        "CustomVerificationEmailTemplateDoesNotExist",
        text or f"Custom verification email template <{shown(name)}> does not exist",
        {"CustomVerificationEmailTemplateName": name},
    )


def _is_web_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and text.isprintable()
    except ValueError:
        return False
