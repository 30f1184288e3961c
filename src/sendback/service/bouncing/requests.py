"""The parsed request for a bounce. SES API: SendBounceRequest."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sendback.aws.arn import IdentityArn
from sendback.dsn.model import ExtensionField, MtaName, RecipientFields
from sendback.dsn.reasons import Reason
from sendback.mail.address import Address
from sendback.mail.envelope import Recipient


@dataclass(frozen=True, slots=True)
class BouncedRecipient:
    """SES API: BouncedRecipientInfo. One of `reason` and `fields` is given; `fields` wins.

    The final recipient of `fields` is `recipient` where the request names no other.
    """

    recipient: Address
    reason: Reason | None = None
    fields: RecipientFields | None = None
    arn: IdentityArn | None = None


@dataclass(frozen=True, slots=True)
class BounceRequest:
    """SES API: SendBounceRequest. `sender` is the `From:` value, `sender_address` its address."""

    original_message_id: str
    sender: str
    sender_address: Address
    recipients: tuple[BouncedRecipient, ...]
    sender_arn: IdentityArn | None = None
    explanation: str | None = None
    reporting_mta: MtaName | None = None
    arrival_date: datetime | None = None
    extension_fields: tuple[ExtensionField, ...] = ()


# A requested recipient, and its entry in the envelope of the message.
Pairs = Sequence[tuple[BouncedRecipient, Recipient]]
