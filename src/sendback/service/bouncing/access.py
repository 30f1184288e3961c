"""Who may bounce what: the identities that a SendBounce uses, and whether the caller may use them.

The sender's identity is the caller's own that covers the address most closely, or the one that
BounceSenderArn names. A recipient that the caller's account did not receive mail for needs
RecipientArn: an identity whose policy lets the caller bounce its mail. The copy of the message that
the account of that identity has is then used for this recipient. What belongs to another account
and is not permitted is treated as missing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sendback.aws.arn import IdentityArn
from sendback.aws.errors import (
    SesError,
    identities_failed,
    invalid_value,
    message_rejected,
    shown,
)
from sendback.mail.address import Address, identity_name
from sendback.mail.covering import covering_names
from sendback.mail.envelope import Recipient
from sendback.service.access.authorization import Access, Authorization, not_permitted
from sendback.service.bouncing.requests import BouncedRecipient, BounceRequest, Pairs
from sendback.store.bouncing.bounces import FindForBounce, Found, Key
from sendback.store.bouncing.calls import CallKey
from sendback.store.messages.messages import ReceivedMessage

MAX_ARNS = 20

Entries = Mapping[str, Recipient]  # by key


@dataclass(frozen=True, slots=True)
class Use:
    """An address that a bounce uses, and the identity that the request names for it, if any.

    `member` is the member of the request; `alias` another spelling of the address.
    """

    member: str
    address: Address
    arn: IdentityArn | None
    alias: Address | None = None

    def keys(self, account_id: str) -> list[Key]:
        """Return the keys of the identities that cover the address, the closest first."""
        if self.arn is not None:
            return [(self.arn.account_id, identity_name(self.arn.identity))]
        return [(account_id, name) for name in covering_names(self.address)]


@dataclass(frozen=True, slots=True)
class BounceUses:
    """The identities that a request uses: the sender's, and each recipient's in order."""

    request: BounceRequest
    sender: Use
    recipients: Sequence[Use]

    def to_find(self, account_id: str, call: CallKey | None) -> FindForBounce:
        """Return the unit that reads all data for the decision about a bounce of this account."""
        opened = [use for use in self.recipients if use.arn is not None]
        accounts = [account_id, *(key[0] for use in opened for key in use.keys(account_id))]
        identities = self.sender.keys(account_id)
        identities += [key for use in opened for key in use.keys(account_id)]
        return FindForBounce(
            self.request.original_message_id,
            tuple(dict.fromkeys(accounts)),
            tuple(dict.fromkeys(identities)),
            call,
        )


class BounceAccess:
    """Decides about the bounces of one region."""

    def __init__(self, authorization: Authorization, region: str, window: timedelta) -> None:
        """`window` is how long after its arrival a message may be bounced."""
        self._authorization = authorization
        self._region = region
        self._window = window

    def uses(self, access: Access, request: BounceRequest) -> BounceUses:
        """Return the identities that the request uses.

        Raises `SesError` for what the ARNs alone show: another region, an identity that does not
        cover the address, too many identities.
        """
        sender = Use("BounceSenderArn", request.sender_address, request.sender_arn)
        recipients = [_use(asked, number) for number, asked in enumerate(request.recipients, 1)]
        everything = [sender, *recipients]
        if len({use.arn for use in everything}) > MAX_ARNS:
            raise SesError(
                "InvalidParameterValue", f"A bounce may name at most {MAX_ARNS} identities by ARN."
            )
        for use in everything:
            if use.arn is None:
                continue
            if use.arn.region != self._region:
                raise not_permitted(access.caller, use.arn)
            if not _covers(use.arn, use.address):
                names = f"{shown(use.arn.identity)} does not cover {shown(str(use.address))}"
                raise invalid_value(use.member, names)
        return BounceUses(request, sender, recipients)

    def resolve(
        self, access: Access, uses: BounceUses, found: Found, now: datetime
    ) -> tuple[ReceivedMessage, Pairs]:
        """Return the message to bounce, and each recipient with its entry in the envelope.

        Raises `SesError`: AccessDenied, and MessageRejected for a sender that is not verified, an
        unknown or expired message, and an address that is not a recipient of it.
        """
        if not self._may_use(access, uses.sender, found):
            raise self.not_verified(uses.sender.address)
        message = self._message(access, uses, found)
        self._check_window(message, now)
        account_id = access.caller.account_id
        entries = {account: entries_of(copy) for account, copy in found.messages.items()}
        originals = [_entry(use, account_id, entries) for use in uses.recipients]
        return message, list(zip(uses.request.recipients, originals, strict=True))

    def not_verified(self, address: Address) -> SesError:
        """SES API: MessageRejected, with the text of the live service."""
        return message_rejected(identities_failed(str(address), self._region))

    def _message(self, access: Access, uses: BounceUses, found: Found) -> ReceivedMessage:
        """Return the caller's own copy, or one of an account whose identity it may use.

        Each identity is checked once, however many recipients name it.
        """
        opened = {use.arn: use for use in uses.recipients if use.arn is not None}
        for arn, use in opened.items():
            if not self._may_use(access, use, found):
                raise not_permitted(access.caller, arn)
        accounts = [access.caller.account_id, *(arn.account_id for arn in opened)]
        copies = (found.messages[account] for account in accounts if account in found.messages)
        message = next(copies, None)
        if message is None:
            asked_id = shown(uses.request.original_message_id)
            raise message_rejected(f"Message not found: {asked_id} was not received here.")
        return message

    def _check_window(self, message: ReceivedMessage, now: datetime) -> None:
        closes = message.received_at + self._window
        if now > closes:
            raise message_rejected(
                f"Message {message.message_id} can no longer be bounced: its window closed at "
                f"{closes:%Y-%m-%dT%H:%M:%SZ}."
            )

    def _may_use(self, access: Access, use: Use, found: Found) -> bool:
        """Return False if the identity would be the caller's own and is not verified."""
        account_id = access.caller.account_id
        key = next((key for key in use.keys(account_id) if key in found.verified), None)
        if key is None:
            if use.arn is None or use.arn.account_id == account_id:
                return False
            raise not_permitted(access.caller, use.arn)
        identity = IdentityArn(self._region, *key)
        policies = found.policies.get(key, ())
        if not self._authorization.decide_use(access, identity, policies).is_allowed:
            raise not_permitted(access.caller, use.arn or identity)
        return True


def originals(message: ReceivedMessage, wanted: Sequence[BouncedRecipient]) -> Pairs:
    """Return each recipient with its entry in the message's envelope.

    Raises `SesError`: MessageRejected.
    """
    entries, pairs = entries_of(message), []
    for asked in wanted:
        found = entry_of(entries, _use(asked, 1))
        if found is None:
            raise not_a_recipient(asked.recipient)
        pairs.append((asked, found))
    return pairs


def _use(asked: BouncedRecipient, number: int) -> Use:
    final = asked.fields.final_recipient if asked.fields else None
    member = f"BouncedRecipientInfoList.member.{number}.RecipientArn"
    return Use(member, asked.recipient, asked.arn, final)


def entries_of(message: ReceivedMessage) -> Entries:
    """Return the entries of the envelope by the keys of their addresses."""
    return {entry.address.key: entry for entry in message.envelope.recipients}


def entry_of(entries: Entries, use: Use) -> Recipient | None:
    """Return the entry of the address or its alias, or None."""
    for address in (use.address, use.alias):
        if address is not None and address.key in entries:
            return entries[address.key]
    return None


def not_a_recipient(address: Address) -> SesError:
    """SES API: MessageRejected."""
    return message_rejected(f"Not a recipient of the original message: {shown(str(address))}")


def _entry(use: Use, account_id: str, entries: Mapping[str, Entries]) -> Recipient:
    found = entry_of(entries.get(account_id, {}), use)
    if found is None and use.arn is not None and use.arn.account_id in entries:
        found = entry_of(entries[use.arn.account_id], use)
        if found is not None and not _covers(use.arn, found.address):
            found = None
    if found is None:
        raise not_a_recipient(use.address)
    return found


def _covers(arn: IdentityArn, address: Address) -> bool:
    """Return whether the identity covers the address, as `covering_names` defines it."""
    name = identity_name(arn.identity)
    if "@" in name:
        return name in {address.key, address.untagged.key}
    domain = address.ascii_domain
    return domain == name or domain.endswith(f".{name}")
