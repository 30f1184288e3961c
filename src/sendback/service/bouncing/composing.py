"""The bounce as a message: which recipients, which texts, how much of the original goes back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sendback.aws.errors import invalid_value, message_rejected
from sendback.dsn.compose import compose
from sendback.dsn.errors import DsnError
from sendback.dsn.model import (
    Action,
    Bounce,
    MtaName,
    RecipientFields,
    Report,
    Returned,
    ReturnedHeaders,
    ReturnedMessage,
)
from sendback.dsn.texts import ENGLISH, Texts, choose_texts
from sendback.ids import IdMaker
from sendback.mail.envelope import Recipient, Ret
from sendback.mail.headers import field_values, message_id
from sendback.service.bouncing.requests import BouncedRecipient, BounceRequest, Pairs
from sendback.store.engine.store import Store
from sendback.store.messages.messages import FindBody, ReceivedMessage
from sendback.store.outbox.rows import OutboxMessage

MAX_RETURNED_OCTETS = 64 * 1024
_MAX_WISHES = 5  # fields of one name that name a language


@dataclass(frozen=True, slots=True)
class HumanPart:
    """The settings of the human-readable part, and whether the whole mail is returned.

    `language` is a key of `languages`, or `auto`: the language of the original (Accept-Language,
    Content-Language), else English. `return_full` is for senders who gave no RET.
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


class BounceComposer:
    """Composes bounces as outbox messages."""

    def __init__(
        self, store: Store, ids: IdMaker, *, hostname: str, human: HumanPart, lifetime: timedelta
    ) -> None:
        """`lifetime` is how long delivery is tried."""
        self._store = store
        self._ids = ids
        self._reporting_mta = MtaName("dns", hostname)
        self._hostname = hostname
        self._human = human
        self._lifetime = lifetime

    async def returned(self, message: ReceivedMessage) -> Returned:
        """Return the whole message where it is wanted, small and well-formed; else its headers.

        A large bounce would also harm the owner of a forged sender address. Raises
        `StoreUnavailableError`.
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
        except DsnError:  # cannot be a message/rfc822 part (RFC 2046 §5.2.1)
            return headers

    def compose(
        self,
        request: BounceRequest,
        message: ReceivedMessage,
        pairs: Pairs,
        returned: Returned,
        now: datetime,
    ) -> OutboxMessage:
        """Return the bounce, to be queued for the account that received the message.

        Raises `SesError`: MessageRejected for a null reverse-path, InvalidParameterValue.
        """
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
            recipient=to,
            content=content,
            fallback=fallback,
            created_at=now,
            expires_at=now + self._lifetime,
            sender=str(request.sender_address),
            sender_account_id=request.sender_arn.account_id if request.sender_arn else None,
        )


def _once(pairs: Pairs) -> Pairs:
    """Return the pairs without those that name a recipient, or a final recipient, once more.

    A report has one group of fields for each recipient (RFC 3464 §2.3).
    """
    if len(pairs) == 1:
        return pairs
    kept: list[tuple[BouncedRecipient, Recipient]] = []
    seen: set[str] = set()
    for asked, original in pairs:
        final = asked.fields.final_recipient if asked.fields else asked.recipient
        keys = {original.address.key, final.key}
        if seen.isdisjoint(keys):
            kept.append((asked, original))
        seen |= keys
    return kept


def _recipient(asked: BouncedRecipient, original: Recipient, now: datetime) -> RecipientFields:
    if asked.fields:
        final = asked.fields.final_recipient
        is_other = final.key != asked.recipient.key
        return replace(
            asked.fields,
            final_recipient=final if is_other else original.address,
            original_recipient=original.original,
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
