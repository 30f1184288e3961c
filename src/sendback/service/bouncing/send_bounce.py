"""Bouncing: authorise, compose, queue. SES API: SendBounce.

What the caller asked for arrives parsed (`BounceRequest`); here it is held against the message
that was received, the identities that the caller has, and the clock. The bounce is committed to
the outbox in one transaction with all that it changes: the account's turn, the remembered call.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sendback.aws.arn import IdentityArn
from sendback.aws.errors import SesError, invalid_value, message_rejected, shown
from sendback.clock import Clock
from sendback.dsn.compose import compose
from sendback.dsn.errors import DsnError
from sendback.dsn.model import (
    Action,
    Bounce,
    ExtensionField,
    MtaName,
    RecipientFields,
    Report,
    Returned,
    ReturnedHeaders,
    ReturnedMessage,
)
from sendback.dsn.reasons import Reason
from sendback.dsn.texts import ENGLISH, Texts, choose_texts
from sendback.ids import IdMaker
from sendback.mail.address import Address
from sendback.mail.covering import covering_names
from sendback.mail.envelope import Envelope, Notify, Recipient, Ret
from sendback.mail.headers import field_values, message_id
from sendback.mail.loops import reason_for_silence
from sendback.service.access.authorization import Access
from sendback.service.bouncing.access import (
    BounceAccess,
    Use,
    entries_of,
    entry_of,
    not_a_recipient,
    not_verified,
)
from sendback.service.heavy import HeavyWork
from sendback.store.bouncing.bounces import FindForBounce, Found, QueueBounce
from sendback.store.bouncing.calls import CallKey
from sendback.store.engine.store import Store
from sendback.store.identities.identities import IsVerified
from sendback.store.messages.messages import FindBody, ReceivedMessage
from sendback.store.outbox.rows import OutboxMessage

log = logging.getLogger(__name__)

MAX_RETURNED_OCTETS = 64 * 1024
_MAX_WISHES = 5  # fields of one name that ask for a language
_HEAVY_LIST = 200  # recipients: some 4 ms of deciding, 3 ms of composing
_HEAVY_POLICIES = 32 * 1024  # octets: some 5 ms of reading, and as much of evaluating the worst


@dataclass(frozen=True, slots=True)
class ExplicitFields:
    """SES API: RecipientDsnFields."""

    action: Action
    status: str
    final_recipient: Address | None = None
    remote_mta: MtaName | None = None
    diagnostic_code: str | None = None
    last_attempt_date: datetime | None = None
    extension_fields: tuple[ExtensionField, ...] = ()


@dataclass(frozen=True, slots=True)
class BouncedRecipient:
    """SES API: BouncedRecipientInfo. One of `reason` and `fields` is given; fields win."""

    recipient: Address
    reason: Reason | None = None
    fields: ExplicitFields | None = None
    arn: IdentityArn | None = None


@dataclass(frozen=True, slots=True)
class BounceRequest:
    """SES API: SendBounceRequest, parsed. `sender` is the `From:` value, `sender_address` in it."""

    original_message_id: str
    sender: str
    sender_address: Address
    recipients: tuple[BouncedRecipient, ...]
    sender_arn: IdentityArn | None = None
    explanation: str | None = None
    reporting_mta: MtaName | None = None
    arrival_date: datetime | None = None
    extension_fields: tuple[ExtensionField, ...] = ()


@dataclass(frozen=True, slots=True)
class HumanPart:
    """What people get to see: texts in which language, and whether the whole mail goes back.

    `language` is a key of `languages`, or `auto`: the original's own wish (Accept-Language,
    Content-Language), English where it has none. `return_full` is for senders who gave no RET.
    """

    languages: Mapping[str, Texts]
    language: str
    return_full: bool

    def texts_for(self, header: bytes) -> Texts:
        if self.language != "auto":
            return self.languages[self.language]
        for name in ("Accept-Language", "Content-Language"):
            for value in field_values(header, name)[:_MAX_WISHES]:
                found = choose_texts(self.languages, value.decode("ascii", "replace"))
                if found:
                    return found
        return self.languages["en"]


Pairs = Sequence[tuple[BouncedRecipient, Recipient]]


@dataclass(frozen=True, slots=True)
class _Uses:
    """The identities that a request uses: the sender's, and each recipient's in order."""

    sender: Use
    recipients: Sequence[Use]


class SilentError(Exception):
    """Mail that no rule answers (RFC 3834 §2, RFC 5321 §6.1); `str` says why."""


class Bouncing:
    """Sends bounces for received messages."""

    def __init__(  # noqa: PLR0913 - its settings, by keyword
        self,
        store: Store,
        clock: Clock,
        ids: IdMaker,
        *,
        hostname: str,
        region: str,
        access: BounceAccess,
        window: timedelta,
        rate: float,
        give_up_after: timedelta,
        human: HumanPart,
        honour_notify_never: bool,
        queued: Callable[[], None],
        heavy: HeavyWork,
    ) -> None:
        """`rate` is in calls per second and account, 0 for no limit; `queued` wakes delivery."""
        self._store = store
        self._clock = clock
        self._ids = ids
        self._reporting_mta = MtaName("dns", hostname)
        self._hostname = hostname
        self._region = region
        self._access = access
        self._window = window
        self._interval = timedelta(seconds=1 / rate) if rate else None
        self._give_up_after = give_up_after
        self._human = human
        self._honour_notify_never = honour_notify_never
        self._queued = queued
        self._heavy = heavy

    async def send_bounce(
        self, access: Access, request: BounceRequest, call: CallKey | None
    ) -> str:
        """Queues the bounce and answers its MessageId; the same one for a repeated call.

        Raises `SesError`, `StoreUnavailableError`.
        """
        is_large = len(request.recipients) > _HEAVY_LIST
        uses, unit = await self._heavy.run(
            lambda: self._what_to_find(access, request, call), heavy=is_large
        )
        found = await self._store.read(unit)
        if found.repeated:
            return found.repeated
        now = self._clock.now()
        message, pairs = await self._heavy.run(
            lambda: self._decide(access, request, uses, found, now),
            heavy=is_large or _has_many_policies(found),
        )
        returned = await self._returned(message)
        composed = await self._heavy.run(
            lambda: self._compose(request, message, pairs, returned, now), heavy=is_large
        )
        outgoing = replace(composed, account_id=access.caller.account_id)
        answer = await self._store.write(QueueBounce(outgoing, call, self._interval))
        if answer is None:
            raise SesError("Throttling", "Rate exceeded")
        if answer == outgoing.message_id:
            self._queued()
            _log_unusual(message, answer)
        return answer

    async def by_rule(self, message: ReceivedMessage, request: BounceRequest) -> OutboxMessage:
        """The bounce that a rule asks for, composed and not queued: the rule's record goes with it.

        Without a rate limit. Raises `SilentError` for mail that is not answered by itself,
        `SesError`, `StoreUnavailableError`.
        """
        reason = reason_for_silence(message.header)
        if message.envelope.reverse_path.address is None:
            reason = "it has a null reverse-path"
        never = _unwanted(message.envelope)  # RFC 3461 §4.1
        wanted = tuple(a for a in request.recipients if a.recipient.key not in never)
        if not wanted:
            reason = "its sender wants no notification (NOTIFY=NEVER)"
        if reason:
            raise SilentError(reason)
        names = covering_names(request.sender_address)
        if not await self._store.read(IsVerified(message.account_id, names)):
            raise not_verified(request.sender_address, self._region)
        returned = await self._returned(message)
        now = self._clock.now()
        return await self._heavy.run(
            lambda: self._compose(request, message, _originals(message, wanted), returned, now),
            heavy=len(wanted) > _HEAVY_LIST,
        )

    def wake_delivery(self) -> None:
        """A bounce was queued by somebody else's transaction."""
        self._queued()

    def _what_to_find(
        self, access: Access, request: BounceRequest, call: CallKey | None
    ) -> tuple[_Uses, FindForBounce]:
        """The identities that the bounce uses, and what must be known to decide about it."""
        sender = Use("BounceSenderArn", request.sender_address, request.sender_arn)
        uses = [_use(asked, number) for number, asked in enumerate(request.recipients, 1)]
        self._access.check_arns(access, [sender, *uses])
        return _Uses(sender, uses), _find_for(access, request, sender, uses, call)

    def _decide(
        self, access: Access, request: BounceRequest, uses: _Uses, found: Found, now: datetime
    ) -> tuple[ReceivedMessage, Pairs]:
        """The message, and what is asked for each recipient with its entry in the envelope."""
        self._access.check_sender(access, uses.sender, found)
        copy = self._access.message(access, uses.recipients, found)
        message = self._bounceable(request.original_message_id, copy, now)
        originals = self._access.recipients(access, uses.recipients, found)
        if self._honour_notify_never:
            _refuse_unwanted(originals)
        return message, list(zip(request.recipients, originals, strict=True))

    def _bounceable(
        self, asked_id: str, message: ReceivedMessage | None, now: datetime
    ) -> ReceivedMessage:
        if message is None:
            raise message_rejected(f"Message not found: {shown(asked_id)} was not received here.")
        closes = message.received_at + self._window
        if now > closes:
            raise message_rejected(
                f"Message {asked_id} can no longer be bounced: its window closed at "
                f"{closes:%Y-%m-%dT%H:%M:%SZ}."
            )
        return message

    async def _returned(self, message: ReceivedMessage) -> Returned:
        """The whole message where it is wanted, small and sound; else its headers.

        Small answers are also what keeps a forged sender's victim from harm.
        """
        headers = ReturnedHeaders(message.header)
        ret = message.envelope.ret
        wanted = ret is Ret.FULL or (self._human.return_full and ret is None)
        if not wanted or message.size > MAX_RETURNED_OCTETS:
            return headers
        body = await self._store.read(FindBody(message.account_id, message.message_id))
        if body is None or body.inline is None:
            return headers
        try:
            return ReturnedMessage(message.header + body.inline)
        except DsnError:  # mail cannot carry it back as it is (RFC 2046 §5.2.1)
            return headers

    def _compose(
        self,
        request: BounceRequest,
        message: ReceivedMessage,
        pairs: Pairs,
        returned: Returned,
        now: datetime,
    ) -> OutboxMessage:
        envelope = message.envelope
        to = envelope.reverse_path.address
        if to is None:  # RFC 5321 §6.1, RFC 3834 §2
            raise message_rejected(
                f"Message {message.message_id} has a null reverse-path: nobody to bounce to."
            )
        recipients = tuple(_recipient(asked, original, now) for asked, original in _once(pairs))
        bounce_id = self._ids.outbound_message(now)
        bounce = Bounce(
            sender=request.sender,
            to=to,
            date=now,
            message_id=f"{bounce_id}@{self._hostname}",
            report=Report(
                reporting_mta=request.reporting_mta or self._reporting_mta,
                recipients=recipients,
                original_envelope_id=envelope.envelope_id,
                arrival_date=request.arrival_date or message.received_at,
                extension_fields=request.extension_fields,
            ),
            explanation=request.explanation,
            in_reply_to=message_id(message.header),
            returned=returned,
        )
        texts = ENGLISH if request.explanation else self._human.texts_for(message.header)
        fallback = None
        try:
            content = compose(bounce, self._ids.boundary(), texts)
            if bounce.needs_8bitmime:
                only_headers = replace(bounce, returned=ReturnedHeaders(message.header))
                fallback = compose(only_headers, self._ids.boundary(), texts)
        except DsnError as error:
            raise invalid_value(error.field, error.rule) from error
        return OutboxMessage(
            message_id=bounce_id,
            account_id=message.account_id,
            original_message_id=message.message_id,
            recipient=str(to),
            content=content,
            fallback=fallback,
            created_at=now,
            expires_at=now + self._give_up_after,
            sender=str(request.sender_address),
            sender_account_id=request.sender_arn.account_id if request.sender_arn else None,
        )


def _use(asked: BouncedRecipient, number: int) -> Use:
    final = asked.fields.final_recipient if asked.fields else None
    member = f"BouncedRecipientInfoList.member.{number}.RecipientArn"
    return Use(member, asked.recipient, asked.arn, final)


def _find_for(
    access: Access,
    request: BounceRequest,
    sender: Use,
    uses: Sequence[Use],
    call: CallKey | None,
) -> FindForBounce:
    account_id = access.caller.account_id
    opened = [use for use in uses if use.arn is not None]
    accounts = [account_id, *(key[0] for use in opened for key in use.keys(account_id))]
    identities = sender.keys(account_id)
    identities += [key for use in opened for key in use.keys(account_id)]
    return FindForBounce(
        request.original_message_id,
        tuple(dict.fromkeys(accounts)),
        tuple(dict.fromkeys(identities)),
        call,
    )


def _has_many_policies(found: Found) -> bool:
    if not found.policies:
        return False
    octets = sum(len(policy.document) for held in found.policies.values() for policy in held)
    return octets > _HEAVY_POLICIES


def _originals(message: ReceivedMessage, wanted: Sequence[BouncedRecipient]) -> Pairs:
    entries, pairs = entries_of(message), []
    for asked in wanted:
        found = entry_of(entries, _use(asked, 1))
        if found is None:
            raise not_a_recipient(asked.recipient)
        pairs.append((asked, found))
    return pairs


def _once(pairs: Pairs) -> Pairs:
    """Each recipient once: a report has one group for each (RFC 3464 §2.3).

    Of several entries for one recipient of the message, or with one final recipient, the first
    counts.
    """
    if len(pairs) == 1:
        return pairs
    kept: list[tuple[BouncedRecipient, Recipient]] = []
    seen: set[str] = set()
    for asked, original in pairs:
        final = asked.fields.final_recipient if asked.fields else None
        keys = {original.address.key, final.key if final else original.address.key}
        if seen.isdisjoint(keys):
            kept.append((asked, original))
        seen |= keys
    return kept


def _recipient(asked: BouncedRecipient, original: Recipient, now: datetime) -> RecipientFields:
    if asked.fields:
        fields = asked.fields
        return RecipientFields(
            final_recipient=fields.final_recipient or original.address,
            action=fields.action,
            status=fields.status,
            original_recipient=original.original,
            remote_mta=fields.remote_mta,
            diagnostic_code=fields.diagnostic_code,
            last_attempt_date=fields.last_attempt_date,
            extension_fields=fields.extension_fields,
        )
    if asked.reason is None:
        raise ValueError("a bounced recipient has a reason or fields")
    return RecipientFields(
        final_recipient=original.address,
        action=Action.FAILED,  # a bounce is final, for TemporaryFailure too
        status=asked.reason.status,
        original_recipient=original.original,
        diagnostic_code=asked.reason.diagnostic_code,
        last_attempt_date=now,
    )


def _refuse_unwanted(originals: Sequence[Recipient]) -> None:
    """RFC 3461 §4.1: NOTIFY=NEVER. SendBounce is asked for by hand, so this is a setting."""
    for original in originals:
        if Notify.NEVER in original.notify:
            raise message_rejected(
                f"The sender wants no notification about {original.address} (NOTIFY=NEVER)."
            )


def _unwanted(envelope: Envelope) -> set[str]:
    return {entry.address.key for entry in envelope.recipients if Notify.NEVER in entry.notify}


def _log_unusual(message: ReceivedMessage, bounce_id: str) -> None:
    """What a rule would not answer is answered by hand, and logged."""
    if not log.isEnabledFor(logging.INFO):
        return
    reason = reason_for_silence(message.header)
    if reason:
        log.info("bounce %s answers message %s, though %s", bounce_id, message.message_id, reason)
