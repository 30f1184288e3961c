"""Mails as the checks are given them."""

from datetime import UTC, datetime

from sendback.mail.envelope import Client, ReversePath
from sendback.mail.headers import header_section
from sendback.service.rules.content import Content, MailToCheck

RECEIVED_AT = datetime(2026, 3, 1, 12, 5, 0, tzinfo=UTC)


def mail_to_check(
    content: bytes,
    client: Client = Client("192.0.2.7", "mx.sender.example"),  # noqa: B008 - frozen
    reverse_path: ReversePath = ReversePath(None),  # noqa: B008 - frozen
    *,
    received_at: datetime = RECEIVED_AT,
    name: str = "a mail",
) -> MailToCheck:
    """A mail whose body is in memory."""
    header = header_section(content)
    body = content[len(header) :]
    return MailToCheck(name, client, reverse_path, received_at, Content(header, body, len(body)))
