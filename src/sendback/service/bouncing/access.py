"""Who may bounce what: the identities that a SendBounce uses, and whether the caller may use them.

The sender's identity is the caller's own that covers the address most closely, or the one that
BounceSenderArn names. A recipient that the caller's account did not receive for needs RecipientArn:
the identity whose policy lets the caller bounce its mail; the copy of the message in that
identity's account is then at hand, for this recipient. What is another account's and not permitted
is as if it were not there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from sendback.store.bouncing.bounces import Found, Key
from sendback.store.messages.messages import ReceivedMessage

MAX_ARNS = 20

Entries = Mapping[str, Recipient]  # by key


@dataclass(frozen=True, slots=True)
class Use:
    """An address that a bounce uses, and the identity that is named for it, if one is.

    `member` is where the request names it; `alias` another spelling that the address may have.
    """

    member: str
    address: Address
    arn: IdentityArn | None
    alias: Address | None = None

    def keys(self, account_id: str) -> list[Key]:
        """The identities that may be meant, the closest first."""
        if self.arn is not None:
            return [(self.arn.account_id, identity_name(self.arn.identity))]
        return [(account_id, name) for name in covering_names(self.address)]


class BounceAccess:
    """Decides for one region."""

    def __init__(self, authorization: Authorization, region: str) -> None:
        self._authorization = authorization
        self._region = region

    def check_arns(self, access: Access, uses: Sequence[Use]) -> None:
        """What can be seen from the ARNs alone. Raises `SesError`."""
        if len({use.arn for use in uses}) > MAX_ARNS:
            raise SesError(
                "InvalidParameterValue", f"A bounce may name at most {MAX_ARNS} identities by ARN."
            )
        for use in uses:
            if use.arn is None:
                continue
            if use.arn.region != self._region:
                raise not_permitted(access.caller, use.arn)
            if not _covers(use.arn, use.address):
                names = f"{shown(use.arn.identity)} does not cover {shown(str(use.address))}"
                raise invalid_value(use.member, names)

    def check_sender(self, access: Access, sender: Use, found: Found) -> None:
        """Raises `SesError`: MessageRejected, AccessDenied."""
        if not self._may_use(access, sender, found):
            raise not_verified(sender.address, self._region)

    def message(self, access: Access, uses: Sequence[Use], found: Found) -> ReceivedMessage | None:
        """The copy that is bounced: the caller's own, else one that it may use.

        Each identity is decided once, however many recipients name it. Raises `SesError`:
        AccessDenied.
        """
        opened = {use.arn: use for use in uses if use.arn is not None}
        for arn, use in opened.items():
            if not self._may_use(access, use, found):
                raise not_permitted(access.caller, arn)
        accounts = [access.caller.account_id, *(arn.account_id for arn in opened)]
        copies = (found.messages[account] for account in accounts if account in found.messages)
        return next(copies, None)

    def recipients(
        self, access: Access, uses: Sequence[Use], found: Found
    ) -> tuple[Recipient, ...]:
        """The envelope's entry of each: of the caller's copy, or of the one that its ARN opens.

        Raises `SesError`: MessageRejected.
        """
        account_id = access.caller.account_id
        entries = {account: entries_of(copy) for account, copy in found.messages.items()}
        return tuple(_entry(use, account_id, entries) for use in uses)

    def _may_use(self, access: Access, use: Use, found: Found) -> bool:
        """False when no such identity is verified and it would be the caller's own."""
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


def not_verified(address: Address, region: str) -> SesError:
    """SES API: MessageRejected, in the live service's words."""
    return message_rejected(identities_failed(str(address), region))


def entries_of(message: ReceivedMessage) -> Entries:
    """The envelope's entries by the keys of their addresses."""
    return {entry.address.key: entry for entry in message.envelope.recipients}


def entry_of(entries: Entries, use: Use) -> Recipient | None:
    """The entry for the address or its alias."""
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
    """As `covering_names` has it, without making all names of a deep domain."""
    name = identity_name(arn.identity)
    if "@" in name:
        return name in {address.key, address.untagged.key}
    domain = address.ascii_domain
    return domain == name or domain.endswith(f".{name}")
