"""The bounces and the other outgoing mail, as tests look at them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sendback.dsn import ParsedDsn, parse
from sendback.dsn.errors import DsnError
from sendback.store.outbox.rows import Attempt, OutboxMessage, OutboxState
from sendback.testing.collection import WAIT_SECONDS, Collection, is_among, wanted


@dataclass(frozen=True)
class SentMail:
    """An outgoing mail: `to` is its recipient, `sender` the address in From.

    `state` is `queued`, `captured`, `delivered`, `failed`, `expired`, `held` or `cancelled`;
    `attempts` are the deliveries that were tried, each with `outcome`, `peer` and `reply`.
    """

    message_id: str
    to: str
    sender: str | None
    created_at: datetime
    state: str
    attempts: tuple[Attempt, ...]
    raw: bytes

    @property
    def is_settled(self) -> bool:
        """Whether a delivery was tried, or will not be."""
        return bool(self.attempts) or self.state != OutboxState.QUEUED


@dataclass(frozen=True)
class Bounce(SentMail):
    """A bounce; `original` is the message ID of the received mail."""

    original: str

    @cached_property
    def dsn(self) -> ParsedDsn:
        """The parsed delivery status notification (see `sendback.dsn`)."""
        return parse(self.raw)


class Bounces(Collection[Bounce]):
    """The bounces of the server."""

    def __init__(self, fetch: Callable[[], Sequence[Bounce]], explain: Callable[[], str]) -> None:
        super().__init__("bounces", fetch, describe_bounce, explain)

    def wait_for(
        self,
        *,
        original: str | None = None,
        recipient: str | None = None,
        to: str | None = None,
        timeout: float = WAIT_SECONDS,
    ) -> Bounce:
        """Return the first bounce that matches all that is given, once a delivery was tried.

        `original` is the message ID of the received mail, `recipient` a recipient that is bounced,
        `to` the address that the bounce goes to. Raise `NotArrivedError` after `timeout` seconds.
        """

        def matches(bounce: Bounce) -> bool:
            return (
                bounce.is_settled
                and original in {None, bounce.original}
                and is_among(to, bounce.to)
                and is_among(recipient, *_bounced(bounce))
            )

        what = wanted("bounce", original=original, recipient=recipient, to=to)
        return self._wait(matches, what, timeout)

    def assert_none(
        self, *, original: str | None = None, to: str | None = None, within: float = 0.2
    ) -> None:
        """Raise `UnexpectedError` if there is such a bounce, or one comes in so many seconds."""

        def matches(bounce: Bounce) -> bool:
            is_original = original in {None, bounce.original}
            return is_original and is_among(to, bounce.to)

        self._wait_for_none(matches, wanted("a bounce", original=original, to=to), within)

    def _key(self, item: Bounce) -> object:
        return item.message_id


class Sent(Collection[SentMail]):
    """Outgoing mail that is not a bounce, such as verification mails."""

    def __init__(self, fetch: Callable[[], Sequence[SentMail]], explain: Callable[[], str]) -> None:
        super().__init__("sent mail", fetch, describe_sent, explain)

    def wait_for(self, *, to: str | None = None, timeout: float = WAIT_SECONDS) -> SentMail:
        """Return the first mail to that address, once a delivery was tried.

        Raise `NotArrivedError` after `timeout` seconds.
        """
        return self._wait(
            lambda mail: mail.is_settled and is_among(to, mail.to),
            wanted("mail", to=to),
            timeout,
        )

    def assert_none(self, *, within: float = 0.2) -> None:
        """Raise `UnexpectedError` if there is any mail, or one comes in so many seconds."""
        self._wait_for_none(lambda _: True, "a mail", within)

    def _key(self, item: SentMail) -> object:
        return item.message_id


def bounce_of(message: OutboxMessage, attempts: Sequence[Attempt]) -> Bounce:
    """Return a bounce as tests see it."""
    sent = sent_mail(message, attempts)
    return Bounce(**vars(sent), original=message.original_message_id)


def sent_mail(message: OutboxMessage, attempts: Sequence[Attempt]) -> SentMail:
    """Return an outgoing mail as tests see it."""
    return SentMail(
        message_id=message.message_id,
        to=str(message.recipient),
        sender=message.sender,
        created_at=message.created_at,
        state=message.state.value,
        attempts=tuple(attempts),
        raw=message.content,
    )


def describe_sent(mail: SentMail) -> str:
    """Return a line about a mail."""
    reply = f", {mail.attempts[-1].reply}" if mail.attempts else ""
    return f"{mail.message_id} to {mail.to}: {mail.state}{reply}"


def describe_bounce(bounce: Bounce) -> str:
    """Return a line about a bounce."""
    return f"{describe_sent(bounce)}; bounces {', '.join(_shown(bounce))} of {bounce.original}"


def _shown(bounce: Bounce) -> list[str]:
    try:
        return [f"{entry.final_recipient} ({entry.status})" for entry in bounce.dsn.recipients]
    except DsnError:
        return ["unreadable recipients"]


def _bounced(bounce: Bounce) -> list[str]:
    return [entry.final_recipient for entry in bounce.dsn.recipients]
