"""The envelope (RFC 5321 §2.3.1): who sends, to whom, from where, and with which parameters.

It is kept with the message for as long as the message is kept, and everything that a bounce
says about the sender's wishes comes from here, never from the header.
"""

from dataclasses import dataclass
from enum import StrEnum

from sendback.mail.address import Address


class Notify(StrEnum):
    """When the sender wants a DSN for a recipient (RFC 3461 §4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class Ret(StrEnum):
    """How much of the mail the sender wants back (RFC 3461 §4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """ORCPT (RFC 3461 §4.2): the recipient as the sender first wrote it, decoded."""

    address_type: str
    address: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """One accepted RCPT TO; `notify` is empty when the sender asked for nothing."""

    address: Address
    notify: frozenset[Notify] = frozenset()
    original: OriginalRecipient | None = None


@dataclass(frozen=True, slots=True)
class ReversePath:
    """MAIL FROM; `address` is None for the null reverse-path, however it was written."""

    address: Address | None

    def __str__(self) -> str:
        return str(self.address) if self.address else ""


@dataclass(frozen=True, slots=True)
class Client:
    """The SMTP client: its IP address, what it called itself, and its TLS version if any."""

    ip: str
    helo: str
    tls: str | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """One transaction: what MAIL and RCPT said. `envelope_id` is ENVID, xtext decoded."""

    client: Client
    reverse_path: ReversePath
    recipients: tuple[Recipient, ...]
    ret: Ret | None = None
    envelope_id: str | None = None
    smtputf8: bool = False
    body_8bit: bool = False
