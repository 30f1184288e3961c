"""Verification mails, with a link that verifies the address.

They are automatic mail with the null reverse-path, so they cause no bounces.
"""

import html
from dataclasses import dataclass
from datetime import datetime, timedelta
from email import policy
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.utils import format_datetime

from sendback.ids import IdMaker
from sendback.mail.address import Address, Mailbox
from sendback.store.identities.verification_templates import VerificationTemplate
from sendback.store.outbox.rows import OutboxMessage

_POLICY = policy.SMTP.clone(cte_type="7bit")

_TEXT = """\
Dear customer,

somebody asked to use this address for sending and receiving mail through the mail service at
{hostname}, region {region}, as account {account_id}:

    {address}

If that was you, open this link and confirm. It works until {expires} UTC, once:

{link}

If it was not you, do nothing. The address is not used unless you confirm.
"""
# The live service appends this to every custom mail too.
_NOT_ASKED = "If you did not request to verify this email address, please disregard this message."


@dataclass(frozen=True, slots=True)
class MailSettings:
    """The `From:` of mails without a template, the name of this server, its region."""

    sender: Mailbox
    hostname: str
    region: str
    lasts: timedelta
    give_up_after: timedelta


class VerificationMails:
    """Composes the mails."""

    def __init__(self, ids: IdMaker, settings: MailSettings) -> None:
        self._ids = ids
        self._settings = settings

    def standard(self, account_id: str, to: Address, link: str, now: datetime) -> OutboxMessage:
        """Return the mail of VerifyEmailIdentity."""
        settings = self._settings
        subject = f"Email Address Verification Request in region {settings.region.upper()}"
        text = _TEXT.format(
            hostname=settings.hostname,
            region=settings.region,
            account_id=account_id,
            address=to,
            expires=f"{now + settings.lasts:%Y-%m-%d %H:%M}",
            link=link,
        )
        message = EmailMessage(_POLICY)
        message.set_content(text)
        return self._outgoing(message, settings.sender, account_id, to, subject, now)

    def custom(
        self, template: VerificationTemplate, sender: Mailbox, to: Address, link: str, now: datetime
    ) -> OutboxMessage:
        """Return the mail of SendCustomVerificationEmail: the template's HTML, then the link."""
        address = html.escape(link)
        content = (
            f'{template.content}\n<p><a href="{address}">{address}</a></p>\n<p>{_NOT_ASKED}</p>\n'
        )
        message = EmailMessage(_POLICY)
        message.set_content(f"{link}\n\n{_NOT_ASKED}\n")
        message.add_alternative(content, subtype="html")
        return self._outgoing(message, sender, template.account_id, to, template.subject, now)

    def _outgoing(
        self,
        message: EmailMessage,
        sender: Mailbox,
        account_id: str,
        to: Address,
        subject: str,
        now: datetime,
    ) -> OutboxMessage:
        message_id = self._ids.outbound_message(now)
        address = sender.address
        message["From"] = HeaderAddress(
            sender.display_name, username=address.local, domain=address.ascii_domain
        )
        message["To"] = HeaderAddress("", username=to.local, domain=to.ascii_domain)
        message["Subject"] = subject
        message["Date"] = format_datetime(now)
        message["Message-ID"] = f"<{message_id}@{self._settings.hostname}>"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834 §5
        return OutboxMessage(
            message_id=message_id,
            account_id=account_id,
            original_message_id="",
            recipient=to,
            content=message.as_bytes(),
            created_at=now,
            expires_at=now + self._settings.give_up_after,
            sender=str(sender.address),
        )
