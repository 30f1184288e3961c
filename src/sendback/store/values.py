"""The frozen values that the store takes and gives: no rows, no dicts."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sendback.mail.envelope import Envelope
from sendback.receipt.model import Disposition, Rules
from sendback.receipt.plan import StepOutcome


class IdentityKind(StrEnum):
    """SES API: IdentityType."""

    EMAIL_ADDRESS = "EmailAddress"
    DOMAIN = "Domain"


class VerificationStatus(StrEnum):
    """SES API: VerificationStatus."""

    PENDING = "Pending"
    SUCCESS = "Success"
    FAILED = "Failed"
    TEMPORARY_FAILURE = "TemporaryFailure"
    NOT_STARTED = "NotStarted"


@dataclass(frozen=True, slots=True)
class Identity:
    """An address or a domain (canonical spelling) that an account has asked to verify."""

    account_id: str
    identity: str
    kind: IdentityKind
    status: VerificationStatus
    verification_token: str
    created_at: datetime

    @property
    def is_verified(self) -> bool:
        return self.status is VerificationStatus.SUCCESS


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key; its secret is sealed with the installation's secret."""

    access_key: str
    account_id: str
    user_name: str
    sealed_secret: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A received message without its body: `size` is in octets, of header and body."""

    message_id: str
    account_id: str
    received_at: datetime
    expires_at: datetime
    envelope: Envelope
    size: int
    header: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """Where a body is: inline, or in the blob store under a name."""

    inline: bytes | None
    blob: str | None = None


class OutboxState(StrEnum):
    """What has become of a message that Sendback wrote."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    CAPTURED = "captured"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A bounce on its way, or at its end. `due_at` is when it is tried next.

    `fallback` is the same bounce for a peer that does not take 8-bit content, where it differs.
    """

    message_id: str
    account_id: str
    original_message_id: str
    recipient: str
    content: bytes
    created_at: datetime
    expires_at: datetime
    state: OutboxState = OutboxState.QUEUED
    due_at: datetime | None = None
    attempts: int = 0
    last_reply: str | None = None
    fallback: bytes | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's time-limited claim on an outbox row; the token fences off a late worker."""

    message: OutboxMessage
    token: int


class Outcome(StrEnum):
    """How one attempt at delivery ended."""

    DELIVERED = "delivered"
    CAPTURED = "captured"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: the peer `host:port`, its TLS version if any, and what it answered."""

    started_at: datetime
    milliseconds: int
    outcome: Outcome
    peer: str
    tls: str | None
    reply: str


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A rule set with its rules; `version` names these very rules."""

    name: str
    created_at: datetime
    version: str
    rules: Rules


class ProcessingState(StrEnum):
    """Whether a message's rules have come to their end."""

    QUEUED = "queued"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Processing:
    """A message on its way through the rules as they were when it came.

    `verdicts` is the JSON of `receipt.verdicts.Verdicts` once an action needed them.
    """

    processing_id: str
    message_id: str
    account_id: str
    rule_set: str
    version: str
    created_at: datetime
    due_at: datetime
    state: ProcessingState = ProcessingState.QUEUED
    verdicts: str | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One action of one rule for one message: what has come of it, in how many attempts.

    `milliseconds` are those of the last attempt; `due_at` is when the next one is, if any.
    """

    rule_number: int
    action_number: int
    rule: str
    action: str
    outcome: StepOutcome
    disposition: Disposition
    attempts: int
    first_at: datetime
    last_at: datetime
    due_at: datetime
    milliseconds: int
    result: str
