"""The envelope (RFC 5321 §2.3.1): client, reverse-path, recipients and their parameters.

It is stored with the message. What a bounce reports about the sender's requests (ENVID, ORCPT,
NOTIFY, RET) comes from the envelope, never from the header.
"""

from dataclasses import dataclass
from enum import StrEnum

from sendback.mail.address import Address


class Notify(StrEnum):
    """The conditions on which the sender requests a DSN for a recipient (RFC 3461 §4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class Ret(StrEnum):
    """How much of the mail the sender wants returned (RFC 3461 §4.3)."""

    FULL = "FULL"
    HDRS = "HDRS"


@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """ORCPT (RFC 3461 §4.2): the recipient as the original sender wrote it, decoded."""

    address_type: str
    address: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """One accepted RCPT TO; `notify` is empty without a NOTIFY parameter."""

    address: Address
    notify: frozenset[Notify] = frozenset()
    original: OriginalRecipient | None = None


@dataclass(frozen=True, slots=True)
class ReversePath:
    """MAIL FROM; `address` is None for the null reverse-path."""

    address: Address | None

    def __str__(self) -> str:
        return str(self.address) if self.address else ""


@dataclass(frozen=True, slots=True)
class Client:
    """The SMTP client: its IP address, its HELO name, and its TLS version or None."""

    ip: str
    helo: str
    tls: str | None = None


@dataclass(frozen=True, slots=True)
class GivenVerdicts:
    """Verdicts that a test gives in place of the checks; None: not given. No part of the RFCs.

    Their values are those of SES, and of DMARC for the policy; `receipt.given_verdicts` parses
    them.
    """

    spf: str | None = None
    dkim: str | None = None
    dmarc: str | None = None
    spam: str | None = None
    virus: str | None = None
    dmarc_policy: str | None = None


@dataclass(frozen=True, slots=True)
class Envelope:
    """The parameters of one mail transaction. `envelope_id` is ENVID, xtext decoded."""

    client: Client
    reverse_path: ReversePath
    recipients: tuple[Recipient, ...]
    ret: Ret | None = None
    envelope_id: str | None = None
    smtputf8: bool = False
    body_8bit: bool = False
    verdicts: GivenVerdicts | None = None
