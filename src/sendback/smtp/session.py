"""The state of one SMTP session, and its limits. Pure."""

import math
from dataclasses import dataclass, field
from typing import Generic

from sendback.mail.envelope import Client, Envelope, Recipient
from sendback.smtp.arguments import MailArguments
from sendback.smtp.events import Note


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """The limits of one session: octets of a message's content, its recipients, and errors in all.

    `overhead_commands` is the number of commands between two messages that are not part of a
    transaction (NOOP, RSET, EHLO and the like).
    """

    content: int = 40 * 2**20
    recipients: int = 1000
    errors: int = 100
    overhead_commands: int = 200


@dataclass(slots=True)
class StorageSpace:
    """How many octets of content can be stored. The server keeps it up to date."""

    octets: float = math.inf


@dataclass(slots=True)
class SessionState(Generic[Note]):
    """What one client has said so far, and what the server offers to it.

    `tls` is the TLS version, or None in clear; `helo` the argument of HELO or EHLO; `mail` the
    arguments of MAIL while a transaction is open. `recipients` maps an address's key to the
    accepted recipient and its note; `recipient_commands` counts RCPT in this transaction.
    """

    hostname: str
    client_ip: str
    limits: SessionLimits
    offers_tls: bool
    space: StorageSpace
    offers_verdicts: bool = False
    tls: str | None = None
    helo: str | None = None
    mail: MailArguments | None = None
    recipients: dict[str, tuple[Recipient, Note]] = field(default_factory=dict)
    recipient_commands: int = 0

    def reset(self) -> None:
        """End the transaction: no sender, no recipients (RFC 5321 §4.1.1.5)."""
        self.mail = None
        self.recipients = {}
        self.recipient_commands = 0

    def restart(self, tls: str) -> None:
        """Start anew under TLS, without anything that came in clear (RFC 3207 §4.2)."""
        self.tls = tls
        self.helo = None
        self.reset()

    def notes(self) -> tuple[Note, ...]:
        """Return the notes of the recipients, in the envelope's order."""
        return tuple(note for _, note in self.recipients.values())

    def envelope(self) -> Envelope:
        """Return the transaction's envelope."""
        mail = self.mail
        if mail is None or self.helo is None:
            raise RuntimeError("content without a transaction")
        return Envelope(
            client=Client(self.client_ip, self.helo, self.tls),
            reverse_path=mail.reverse_path,
            recipients=tuple(recipient for recipient, _ in self.recipients.values()),
            ret=mail.ret,
            envelope_id=mail.envelope_id,
            smtputf8=mail.smtputf8,
            body_8bit=mail.body_8bit,
            verdicts=mail.verdicts,
        )
