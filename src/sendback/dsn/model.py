"""The model of a bounce: frozen values that `compose` writes.

A value that exists is valid as far as one field goes: each class checks its own members when it
is created and raises `DsnError`, so that the writer never gets an invalid status.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sendback.dsn.errors import DsnError
from sendback.dsn.fields import check_value, lines_are_sound
from sendback.mail.address import Address
from sendback.mail.envelope import OriginalRecipient

__all__ = [
    "Action",
    "Bounce",
    "ExtensionField",
    "MtaName",
    "OriginalRecipient",
    "RecipientFields",
    "Report",
    "Returned",
    "ReturnedHeaders",
    "ReturnedMessage",
]

# RFC 3463 §2: class, then subject and detail without leading zeros; RFC 3464 §2.3.4: what else
# is said stands in parentheses.
_STATUS = re.compile(
    r"([245])\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})(?: *\([^()\\]*\))?", re.ASCII
)
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_HOST = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?)*"
)
_LITERAL = re.compile(r"\[[0-9A-Za-z:.]+\]")
_EXTENSION_NAME = re.compile(r"[A-Za-z0-9-]{1,50}")
MAX_EXTENSION_VALUE = 2048

# RFC 3464 §2.2 and §2.3: what an extension field must not be called, in any case.
STANDARD_FIELDS = frozenset(
    {
        "original-envelope-id", "reporting-mta", "dsn-gateway", "received-from-mta",
        "arrival-date", "original-recipient", "final-recipient", "action", "status",
        "remote-mta", "diagnostic-code", "last-attempt-date", "final-log-id",
        "will-retry-until",
    }
)  # fmt: skip


class Action(StrEnum):
    """What the reporting MTA did (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"
    EXPANDED = "expanded"


# RFC 3464 §2.3.4: the class of the status agrees with the action.
STATUS_CLASSES = {
    Action.FAILED: "45",
    Action.DELAYED: "4",
    Action.DELIVERED: "2",
    Action.RELAYED: "2",
    Action.EXPANDED: "2",
}


@dataclass(frozen=True, slots=True)
class MtaName:
    """`type; name` (RFC 3464 §2.1.2); of type `dns` the name is a host name or a literal."""

    type: str
    name: str
    field: str = "MTA name"

    def __post_init__(self) -> None:
        if not _TYPE.fullmatch(self.type):
            raise DsnError(self.field, f"{self.type!r} is not an MTA name type such as dns")
        check_value(self.field, self.name)
        is_dns = self.type.lower() == "dns"
        if is_dns and not (_HOST.fullmatch(self.name) or _LITERAL.fullmatch(self.name)):
            raise DsnError(self.field, f"{self.name!r} is not a host name (RFC 3464 §2.2.2)")

    @classmethod
    def from_text(cls, text: str, field: str) -> "MtaName":
        """Return the name in `dns; mx.example.com`. Raise `DsnError` with `field`."""
        mta_type, semicolon, name = text.partition(";")
        if not semicolon:
            raise DsnError(field, f"{text!r} is not of the form 'mta-name-type; mta-name'")
        return cls(mta_type.strip(" \t"), name.strip(" \t"), field)

    def __str__(self) -> str:
        return f"{self.type}; {self.name}"


@dataclass(frozen=True, slots=True)
class ExtensionField:
    """An additional field (RFC 3464 §2.4); SES allows 50 and 2,048 characters."""

    name: str
    value: str

    def __post_init__(self) -> None:
        if not _EXTENSION_NAME.fullmatch(self.name):
            raise DsnError(self.name or "Name", "an extension name is 1 to 50 of a-z A-Z 0-9 -")
        if self.name.lower() in STANDARD_FIELDS:
            raise DsnError(self.name, "is a standard DSN field, not an extension (RFC 3464 §2.4)")
        if len(self.value) > MAX_EXTENSION_VALUE:
            raise DsnError(self.name, f"the value is longer than {MAX_EXTENSION_VALUE} characters")
        check_value(self.name, self.value)


@dataclass(frozen=True, slots=True)
class RecipientFields:
    """One recipient's group of fields (RFC 3464 §2.3).

    `diagnostic_code` is the whole field value, `smtp; 550 5.1.1 Mailbox does not exist`.
    `original_recipient` is given exactly when the sender gave ORCPT (RFC 3461 §6.3 d).
    """

    final_recipient: Address
    action: Action
    status: str
    original_recipient: OriginalRecipient | None = None
    remote_mta: MtaName | None = None
    diagnostic_code: str | None = None
    last_attempt_date: datetime | None = None
    will_retry_until: datetime | None = None
    extension_fields: tuple[ExtensionField, ...] = ()

    def __post_init__(self) -> None:
        match = _STATUS.fullmatch(self.status)
        if not match:
            raise DsnError("Status", f"{self.status!r} is not a status such as 5.1.1 (RFC 3463 §2)")
        if match[1] not in STATUS_CLASSES[self.action]:
            raise DsnError(
                "Status", f"{self.status!r} does not agree with action {self.action.value!r}"
            )
        if self.will_retry_until and self.action is not Action.DELAYED:
            raise DsnError("Will-Retry-Until", "only a delayed recipient has one (RFC 3464 §2.3.9)")
        if self.diagnostic_code is not None:
            _check_diagnostic(self.diagnostic_code)


def _check_diagnostic(text: str) -> None:
    """Raise `DsnError` unless the text is `type; text` (RFC 3464 §2.3.6)."""
    check_value("Diagnostic-Code", text)
    diagnostic_type, semicolon, _ = text.partition(";")
    if not semicolon or not _TYPE.fullmatch(diagnostic_type.strip(" \t")):
        raise DsnError("Diagnostic-Code", f"{text!r} is not of the form 'type; text'")


@dataclass(frozen=True, slots=True)
class Report:
    """The content of `message/delivery-status` (RFC 3464 §2): per message, then per recipient."""

    reporting_mta: MtaName
    recipients: tuple[RecipientFields, ...]
    original_envelope_id: str | None = None
    received_from_mta: MtaName | None = None
    arrival_date: datetime | None = None
    extension_fields: tuple[ExtensionField, ...] = ()

    def __post_init__(self) -> None:
        if not self.recipients:
            raise DsnError("recipients", "a DSN reports on at least one recipient (RFC 3464 §2.1)")


@dataclass(frozen=True, slots=True)
class ReturnedHeaders:
    """The original's header section: any octets, encoded where 7bit does not carry them."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class ReturnedMessage:
    """The whole original, returned octet for octet.

    `message/rfc822` is never encoded (RFC 2046 §5.2.1), so a message that mail cannot carry as it
    is (a bare line end, a NUL, a line over 998 octets) is refused with `DsnError`.
    """

    octets: bytes
    needs_8bitmime: bool = field(init=False)

    def __post_init__(self) -> None:
        if not lines_are_sound(self.octets) or b"\0" in self.octets:
            raise DsnError("returned message", "has a bare CR or LF, a NUL or too long a line")
        object.__setattr__(self, "needs_8bitmime", not self.octets.isascii())


Returned = ReturnedHeaders | ReturnedMessage


@dataclass(frozen=True, slots=True)
class Bounce:
    """A whole bounce.

    `sender` is the `From:` value as given; `to` the original's reverse-path; `message_id` the
    Message-ID without angle brackets; `explanation` the human part, None for a generated text;
    `in_reply_to` the original's `<left@right>`; `returned` what goes back of it.
    """

    sender: str
    to: Address
    date: datetime
    message_id: str
    report: Report
    explanation: str | None = None
    in_reply_to: str | None = None
    returned: Returned = ReturnedHeaders(b"")

    @property
    def needs_8bitmime(self) -> bool:
        """Whether the server must support 8BITMIME (RFC 6152)."""
        whole = self.returned
        return isinstance(whole, ReturnedMessage) and whole.needs_8bitmime

    @property
    def needs_smtputf8(self) -> bool:
        """Whether the server must support SMTPUTF8 (RFC 6531)."""
        return self.to.needs_smtputf8
