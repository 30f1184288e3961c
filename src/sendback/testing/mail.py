"""Mail from tests: composed from keyword arguments if need be, delivered by real SMTP."""

import smtplib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import getaddresses, make_msgid
from os import PathLike
from pathlib import Path

from sendback.errors import SendbackError
from sendback.mail.headers import field_values, header_section

Message = bytes | EmailMessage | str | PathLike[str]

DEFAULT_SENDER = "sender@sender.example"
_SECONDS = 60.0
_POSITIVE = range(200, 400)
_VERDICTS = ("spf", "dkim", "dmarc", "spam", "virus", "dmarc_policy")


class MailRefusedError(SendbackError):
    """The server refused a mail: at which command, for which recipient, and its reply."""

    def __init__(self, command: str, reply: str, recipient: str | None = None) -> None:
        about = f" for {recipient}" if recipient else ""
        super().__init__(f"{command}{about}: {reply}")
        self.command = command
        self.reply = reply
        self.recipient = recipient

    @property
    def code(self) -> int:
        """The reply code, such as 550."""
        return int(self.reply[:3])

    @property
    def enhanced_code(self) -> str:
        """The enhanced status code, such as 5.1.1; empty if there is none (RFC 2034)."""
        second = self.reply.split(" ")[1:2]
        return second[0] if second and second[0].count(".") == 2 else ""  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Delivery:
    """A mail, its envelope and the client that delivers it."""

    content: bytes
    sender: str
    recipients: Sequence[str]
    mail_options: Sequence[str] = ()
    client_ip: str | None = None
    helo: str = "mx.sender.example"


def deliver(host: str, port: int, mail: Delivery) -> str:
    """Return the message ID in the server's reply.

    Raise `MailRefusedError` when the sender, any recipient or the content is refused: nothing is
    received then.
    """
    source = (mail.client_ip, 0) if mail.client_ip else None
    try:
        with smtplib.SMTP(
            host, port, local_hostname=mail.helo, timeout=_SECONDS, source_address=source
        ) as client:
            client.ehlo()
            return _transact(client, mail)
    except smtplib.SMTPConnectError as error:
        raise MailRefusedError("connect", _reply(error.smtp_code, error.smtp_error)) from None
    except smtplib.SMTPServerDisconnected as error:
        raise MailRefusedError("connection", f"421 {error}") from None


def _transact(client: smtplib.SMTP, mail: Delivery) -> str:
    options = list(mail.mail_options)
    if not all(address.isascii() for address in (mail.sender, *mail.recipients)):
        client.command_encoding = "utf-8"
        options.append("SMTPUTF8")
    _check("MAIL", client.mail(mail.sender, options))
    for recipient in mail.recipients:
        _check("RCPT", client.rcpt(recipient), recipient)
    try:
        code, text = client.data(mail.content)
    except smtplib.SMTPDataError as error:
        raise MailRefusedError("DATA", _reply(error.smtp_code, error.smtp_error)) from None
    _check("content", (code, text))
    words = text.decode().split()
    return words[1] if words[0].startswith("2.") else words[0]


def _check(command: str, answer: tuple[int, bytes], recipient: str | None = None) -> None:
    code, text = answer
    if code not in _POSITIVE:
        raise MailRefusedError(command, _reply(code, text), recipient)


def _reply(code: int, text: bytes | str) -> str:
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return f"{code} {' '.join(shown.split())}"


def check_addresses(recipients: Sequence[object], client_ip: str | None) -> None:
    """Raise `TypeError` for a text with several addresses, `ValueError` for a foreign address."""
    for recipient in recipients:
        if not isinstance(recipient, str) or len(getaddresses([recipient])) != 1:
            raise TypeError(f"{recipient!r} is not one address: give several as a list")
    if client_ip is not None and not client_ip.startswith("127."):
        raise ValueError(f"client_ip {client_ip!r} is no address in 127.0.0.0/8 to connect from")


def octets_of(message: Message) -> bytes:
    """Return the octets of a message with CRLF line ends.

    A text is a path. Octets with any CRLF are passed on unchanged, so that a test can send a bare
    line end on purpose.
    """
    if isinstance(message, EmailMessage):
        return message.as_bytes(policy=SMTP)
    octets = message if isinstance(message, bytes) else Path(message).read_bytes()
    return octets if b"\r\n" in octets else octets.replace(b"\n", b"\r\n")


def compose(sender: str, recipients: Sequence[str], subject: str, text: str) -> bytes:
    """Return a small mail."""
    message = EmailMessage()
    message["From"] = sender or DEFAULT_SENDER
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Message-ID"] = make_msgid(domain="sender.example")
    message.set_content(text)
    return message.as_bytes(policy=SMTP)


def addresses_in(octets: bytes, *names: str) -> list[str]:
    """Return the addresses in the named header fields of a message."""
    header = header_section(octets)
    values = [value.decode() for name in names for value in field_values(header, name)]
    return [address for _, address in getaddresses(values) if address]


def verdict_options(verdicts: Mapping[str, str] | None) -> list[str]:
    """Return the MAIL parameter that sets the verdicts of a message.

    Raise `TypeError` for an unknown name.
    """
    if not verdicts:
        return []
    unknown = sorted(verdicts.keys() - set(_VERDICTS))
    if unknown:
        raise TypeError(f"there is no verdict {unknown[0]!r}: use {', '.join(_VERDICTS)}")
    pairs = [f"{name.replace('_', '-')}:{value}" for name, value in verdicts.items()]
    return [f"XSENDBACK-VERDICTS={','.join(pairs)}"]
