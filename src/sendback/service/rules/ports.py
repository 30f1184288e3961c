"""The ports through which actions reach the outside: objects, topics, functions, mailboxes.

A target is what a bucket's name or an ARN is mapped to, as text: `directory:/var/mail`,
`https://…`, `python:handlers.py:check`, `aws`. What implements a port reads it; the services only
hand it on.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from sendback.errors import SendbackError
from sendback.mail.printable import printable
from sendback.service.rules.content import Content

_SHOWN = 1000  # characters of what a partner said, which may be megabytes


class ActionFailedError(SendbackError):
    """An action did not work. `str` is for people: one line of visible characters.

    `final` when trying again would not help; `waits` when the partner's protocol says after which
    waits to try again (and no more often), in place of the usual growing ones.
    """

    def __init__(
        self, text: str, *, final: bool = False, waits: Sequence[timedelta] | None = None
    ) -> None:
        super().__init__(printable(text, _SHOWN))
        self.final = final
        self.waits = waits


class UnknownTargetError(ActionFailedError):
    """There is no such bucket, topic, function or mailbox."""


class Objects(Protocol):
    """Where S3 actions store."""

    async def check(self, target: str, bucket: str) -> None:
        """Raises `UnknownTargetError`, `ActionFailedError`."""

    async def put(self, target: str, bucket: str, key: str, content: Content) -> str:
        """Store the content durably, whole or not at all; return where it is, for people.

        Raises `ActionFailedError`, `ContentGoneError`.
        """


class Topics(Protocol):
    """Where notifications are published."""

    async def check(self, target: str, topic_arn: str) -> None:
        """Raises `UnknownTargetError`, `ActionFailedError`."""

    async def publish(self, target: str, topic_arn: str, subject: str, message: str) -> str:
        """Answers what was published where, for people. Raises `ActionFailedError`."""


class Functions(Protocol):
    """What function actions call."""

    async def check(self, target: str, function_arn: str) -> None:
        """Raises `UnknownTargetError`, `ActionFailedError`."""

    async def invoke(self, target: str, function_arn: str, event: str, *, wait: bool) -> object:
        """Calls it with the event, JSON; its answer, read from JSON, when it is waited for.

        Raises `ActionFailedError`.
        """


class Mailboxes(Protocol):
    """Where WorkMail and Connect actions hand mail over."""

    async def deliver(
        self, target: str, sender: str, recipients: Sequence[str], content: Content
    ) -> str:
        """Hand the mail over and return the server's reply.

        `sender` is empty for the null reverse-path. Raises `ActionFailedError`,
        `ContentGoneError`.
        """
