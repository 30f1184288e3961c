"""The frozen values that the store takes and gives: no rows, no dicts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


class CheckKind(StrEnum):
    """What DNS has to show: the domain's token, its DKIM keys, the MX of its MAIL FROM domain."""

    DOMAIN = "domain"
    DKIM = "dkim"
    MAIL_FROM = "mail_from"


@dataclass(frozen=True, slots=True)
class IdentityCheck:
    """Something that is looked for in DNS. `away_since`: it was there and is not any more.

    `due_at` is when it is looked for next; None: not any more. `reason` is why it was not found.
    `tries` is how often it was taken since a result was recorded: see `store/engine/leasing.py`.
    """

    account_id: str
    identity: str
    kind: CheckKind
    status: VerificationStatus
    asked_at: datetime
    due_at: datetime | None
    checked_at: datetime | None = None
    away_since: datetime | None = None
    reason: str = ""
    tries: int = 0


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """What an account has set for an identity; the defaults are SES's.

    `topics` and `headers` are by SES's NotificationType: Bounce, Complaint, Delivery.
    """

    dkim_enabled: bool = False
    mail_from_domain: str = ""
    behavior_on_mx_failure: str = "UseDefaultValue"
    forwarding_enabled: bool = True
    topics: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, bool] = field(default_factory=dict)


class DkimKeyState(StrEnum):
    """Signs; is published and will sign; signed until a while ago."""

    ACTIVE = "active"
    STANDBY = "standby"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A domain's DKIM key (RFC 6376): `algorithm` and `public_key` are its k= and p= tags."""

    account_id: str
    domain: str
    selector: str
    algorithm: str
    state: DkimKeyState
    sealed_key: bytes | None
    public_key: str
    created_at: datetime
    seen_at: datetime | None = None
    retired_at: datetime | None = None

    @property
    def record_name(self) -> str:
        """Where its record is (RFC 6376 §3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy document under the name that it is attached with."""

    name: str
    document: str


@dataclass(frozen=True, slots=True)
class VerificationTemplate:
    """SES API: CustomVerificationEmailTemplate."""

    account_id: str
    name: str
    from_address: str
    subject: str
    content: str
    success_url: str
    failure_url: str


@dataclass(frozen=True, slots=True)
class Account:
    """An account; `name` is for people."""

    account_id: str
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A user of an account; `policies` restrict it when it has any."""

    account_id: str
    name: str
    created_at: datetime
    policies: tuple[NamedPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key; its secret is sealed with the installation's secret.

    One with `expires_at` is a temporary one, and goes with the session token of that hash.
    """

    access_key: str
    account_id: str
    user_name: str
    sealed_secret: bytes
    created_at: datetime
    disabled_at: datetime | None = None
    last_used_at: datetime | None = None
    expires_at: datetime | None = None
    token_hash: str | None = None


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
    HELD = "held"
    DELIVERED = "delivered"
    CAPTURED = "captured"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """A bounce on its way, or at its end. `due_at` is when it is tried next.

    `fallback` is the same bounce for a peer that does not take 8-bit content, where it differs.
    `domain` is the recipient's in canonical form: the store fills it in. `sender` is the address
    in `From:`, and `sender_account_id` whose identity that is, where it is another account's.
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
    domain: str = ""
    sender: str | None = None
    sender_account_id: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's time-limited claim on an outbox row; the token fences off a late worker.

    `failures` is how many times in a row its destination had failed: if any, this is a probe.
    `tries` is how often the row was leased since a result was recorded, this time included.
    """

    message: OutboxMessage
    token: int
    failures: int = 0
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Block:
    """A destination has failed so many times in a row: nothing goes there until then."""

    failures: int
    until: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Destination:
    """A domain that mail goes to: how much waits, and whether it may go."""

    domain: str
    waiting: int
    failures: int
    blocked_until: datetime | None
    is_paused: bool
    reason: str | None
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeptStsPolicy:
    """A domain's MTA-STS policy as it was fetched (RFC 8461 §3.2), under the ID that it had."""

    domain: str
    policy_id: str
    policy: str
    fetched_at: datetime
    expires_at: datetime


class Outcome(StrEnum):
    """How one attempt at delivery ended."""

    DELIVERED = "delivered"
    CAPTURED = "captured"
    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt: the peer `host[address]:port`, its TLS version if any, and what it answered.

    `tls_policy` is what TLS had to be there: `opportunistic`, `dane`, ….
    """

    started_at: datetime
    milliseconds: int
    outcome: Outcome
    peer: str
    tls: str | None
    reply: str
    tls_policy: str | None = None


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A rule set with its rules; `version` names these very rules."""

    name: str
    created_at: datetime
    version: str
    rules: Rules


class ProcessingState(StrEnum):
    """How far a message's rules have come.

    `held`: set aside, because they broke their worker; `dropped`: ended by the operator.
    """

    QUEUED = "queued"
    HELD = "held"
    DONE = "done"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Processing:
    """A message on its way through the rules as they were when it came.

    `verdicts` is the JSON of `receipt.verdicts.Verdicts` once an action needed them. `reason` is
    why it is held or dropped, or why a worker failed on it last.
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
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One action of one rule for one message: what has come of it, in how many attempts.

    `milliseconds` are those of the last attempt; `due_at` is when the next one is, if any.
    `broken` is how many attempts in a row ended in an error of this program.
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
    broken: int = 0
