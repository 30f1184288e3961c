"""Rule sets, rules and actions. SES API: ReceiptRuleSet, ReceiptRule, ReceiptAction.

Frozen values without behaviour. ARNs, buckets and addresses are text as given; `constraints`
validates them when a rule is written.
"""

from dataclasses import dataclass
from enum import StrEnum


class TlsPolicy(StrEnum):
    """SES API: TlsPolicy."""

    OPTIONAL = "Optional"
    REQUIRE = "Require"


class Encoding(StrEnum):
    """SES API: SNSActionEncoding."""

    UTF_8 = "UTF-8"
    BASE64 = "Base64"


class InvocationType(StrEnum):
    """SES API: InvocationType. Only RequestResponse waits for a disposition."""

    EVENT = "Event"
    REQUEST_RESPONSE = "RequestResponse"


class Disposition(StrEnum):
    """The result of a synchronous function, and its effect on the mail."""

    CONTINUE = "CONTINUE"
    STOP_RULE = "STOP_RULE"
    STOP_RULE_SET = "STOP_RULE_SET"


@dataclass(frozen=True, slots=True)
class AddHeaderAction:
    """Adds a header field for later actions."""

    header_name: str
    header_value: str
    topic_arn: None = None


@dataclass(frozen=True, slots=True)
class S3Action:
    """Stores the content. `kms_key_arn` and `iam_role_arn` are stored, not used."""

    bucket_name: str
    object_key_prefix: str | None = None
    topic_arn: str | None = None
    kms_key_arn: str | None = None
    iam_role_arn: str | None = None


@dataclass(frozen=True, slots=True)
class SNSAction:
    """Publishes the notification with the content."""

    topic_arn: str
    encoding: Encoding = Encoding.UTF_8


@dataclass(frozen=True, slots=True)
class LambdaAction:
    """Calls a function, for its disposition or without waiting."""

    function_arn: str
    invocation_type: InvocationType = InvocationType.EVENT
    topic_arn: str | None = None


@dataclass(frozen=True, slots=True)
class BounceAction:
    """Sends one bounce for all recipients that the rule matched. `sender` is an address."""

    smtp_reply_code: str
    message: str
    sender: str
    status_code: str | None = None
    topic_arn: str | None = None


@dataclass(frozen=True, slots=True)
class StopAction:
    """Ends the evaluation of the rule set."""

    topic_arn: str | None = None


@dataclass(frozen=True, slots=True)
class WorkmailAction:
    """Delivers the mail to the SMTP server that replaces WorkMail (a setting)."""

    organization_arn: str
    topic_arn: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectAction:
    """Delivers the mail to the SMTP server that replaces Connect (a setting)."""

    instance_arn: str
    role_arn: str
    topic_arn: None = None


Action = (
    AddHeaderAction
    | S3Action
    | SNSAction
    | LambdaAction
    | BounceAction
    | StopAction
    | WorkmailAction
    | ConnectAction
)

# As events and the history of a message name them (SES developer guide, "Notification contents").
ACTION_TYPES: dict[type[Action], str] = {
    AddHeaderAction: "AddHeader",
    S3Action: "S3",
    SNSAction: "SNS",
    LambdaAction: "Lambda",
    BounceAction: "Bounce",
    StopAction: "Stop",
    WorkmailAction: "WorkMail",
    ConnectAction: "Connect",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule. Without `recipients` it matches all mail for the account's identities."""

    name: str
    enabled: bool = False
    tls_policy: TlsPolicy = TlsPolicy.OPTIONAL
    recipients: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    scan_enabled: bool = False


Rules = tuple[Rule, ...]
