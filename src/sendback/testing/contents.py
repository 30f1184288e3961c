"""What is on a server: received mail with the steps of its rules, bounces, other outgoing mail."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from sendback.app import App
from sendback.store.outbox.control import FindOutboxMessage, ListOutbox, Selection
from sendback.store.outbox.rows import Attempt, OutboxMessage
from sendback.testing.outgoing import (
    Bounce,
    SentMail,
    bounce_of,
    describe_bounce,
    describe_sent,
    sent_mail,
)
from sendback.testing.received import ReceivedMail, describe_received, received_mail

T = TypeVar("T")

_LISTED = 1000


class Run(Protocol):
    """Runs a coroutine on the server's event loop and returns its result."""

    def __call__(self, work: Coroutine[Any, Any, T], /) -> T: ...


class Contents:
    """Reads the newest thousand of each kind, and returns the oldest first."""

    def __init__(self, run: Run, app: Callable[[], App]) -> None:
        self._run = run
        self._app = app

    def received(self) -> Sequence[ReceivedMail]:
        """Return the received mail."""
        app = self._app()
        account = app.settings.account_id

        async def read() -> list[ReceivedMail]:
            found = await app.messages.list(account, _LISTED, None)
            ids = [message.message_id for message, _ in reversed(found)]
            return [await received_mail(await app.messages.find(account, key)) for key in ids]

        return self._run(read())

    def bounces(self) -> Sequence[Bounce]:
        """Return the bounces."""
        return [bounce_of(*entry) for entry in self._outbox() if entry[0].original_message_id]

    def sent(self) -> Sequence[SentMail]:
        """Return the outgoing mail that is no bounce."""
        return [sent_mail(*entry) for entry in self._outbox() if not entry[0].original_message_id]

    def describe_received(self) -> str:
        """Return a line for each received mail, and for each step of its rules."""
        lines = [f"  {describe_received(mail)}" for mail in self.received()]
        return _listed("received mail", lines)

    def describe(self) -> str:
        """Return everything as text."""
        bounces = [f"  {describe_bounce(bounce)}" for bounce in self.bounces()]
        sent = [f"  {describe_sent(mail)}" for mail in self.sent()]
        texts = [self.describe_received(), _listed("bounces", bounces)]
        return "\n".join([*texts, _listed("sent mail", sent)] if sent else texts)

    def _outbox(self) -> Sequence[tuple[OutboxMessage, Sequence[Attempt]]]:
        app = self._app()
        account = app.settings.account_id

        async def read() -> list[tuple[OutboxMessage, Sequence[Attempt]]]:
            messages = await app.store.read(ListOutbox(Selection(account), _LISTED))
            units = [FindOutboxMessage(account, found.message_id) for found in reversed(messages)]
            found = await asyncio.gather(*(app.store.read(unit) for unit in units))
            return [entry for entry in found if entry is not None]

        return self._run(read())


def _listed(heading: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{heading}:", *lines]) if lines else f"{heading}: none"
