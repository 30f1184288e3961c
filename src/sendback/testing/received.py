"""The received mail, as tests look at it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from sendback.mail.encoded_words import decode_words
from sendback.mail.headers import field_values, unfolded
from sendback.service.rules.control import ShownMessage
from sendback.store.rules.processing import StepRecord
from sendback.testing.collection import WAIT_SECONDS, Collection, is_among, wanted


@dataclass(frozen=True)
class ReceivedMail:
    """A received mail: its envelope, its octets, and what the rules did.

    `state` is that of its rules: `queued`, `done`, `held`, `dropped`; None without an active rule
    set. `steps` are the actions so far, each with `rule`, `action`, `outcome` and `result`.
    """

    message_id: str
    sender: str
    recipients: tuple[str, ...]
    received_at: datetime
    raw: bytes
    state: str | None
    steps: tuple[StepRecord, ...]

    @cached_property
    def subject(self) -> str:
        """The decoded subject; empty without one."""
        values = field_values(self.raw, "Subject")
        return decode_words(unfolded(values[0]).decode("utf-8", "replace")) if values else ""


class ReceivedMails(Collection[ReceivedMail]):
    """The mail that was received."""

    def __init__(
        self, fetch: Callable[[], Sequence[ReceivedMail]], explain: Callable[[], str] = str
    ) -> None:
        super().__init__("received mail", fetch, describe_received, explain)

    def wait_for(
        self,
        *,
        message_id: str | None = None,
        sender: str | None = None,
        recipient: str | None = None,
        subject: str | None = None,
        processed: bool = False,
        timeout: float = WAIT_SECONDS,
    ) -> ReceivedMail:
        """Return the first mail that matches all that is given; with `processed`, once its rules
        have ended.

        Raise `NotArrivedError` after `timeout` seconds.
        """

        def matches(mail: ReceivedMail) -> bool:
            return (
                message_id in {None, mail.message_id}
                and is_among(sender, mail.sender)
                and is_among(recipient, *mail.recipients)
                and (subject is None or subject == mail.subject)
                and not (processed and mail.state == "queued")
            )

        what = wanted(
            "processed mail" if processed else "mail",
            message_id=message_id,
            sender=sender,
            recipient=recipient,
            subject=subject,
        )
        return self._wait(matches, what, timeout)

    def assert_none(self, *, within: float = 0.2) -> None:
        """Raise `UnexpectedError` if there is any mail, or one arrives in so many seconds."""
        self._wait_for_none(lambda _: True, "mail", within)

    def _key(self, item: ReceivedMail) -> object:
        return item.message_id


async def received_mail(shown: ShownMessage) -> ReceivedMail:
    """Return the mail as tests see it."""
    message = shown.message
    return ReceivedMail(
        message_id=message.message_id,
        sender=str(message.envelope.reverse_path),
        recipients=tuple(str(entry.address) for entry in message.envelope.recipients),
        received_at=message.received_at,
        raw=await shown.content.whole() if shown.content else b"",
        state=shown.processing.state.value if shown.processing else None,
        steps=tuple(shown.steps),
    )


def describe_received(mail: ReceivedMail) -> str:
    """Return a line about a mail, and one for each step of its rules."""
    about = f"{mail.message_id} from <{mail.sender}> to {', '.join(mail.recipients)}"
    rules = "no active rule set" if mail.state is None else f"rules: {mail.state}"
    steps = [f"\n    {_describe_step(step)}" for step in mail.steps]
    return f"{about}, {mail.subject!r}, {rules}{''.join(steps)}"


def _describe_step(step: Any) -> str:
    return f"rule {step.rule}, {step.action}: {step.outcome}, {step.result}"
