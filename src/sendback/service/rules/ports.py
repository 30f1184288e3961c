"""The interfaces of action backends: objects, topics, functions, mailboxes.

A target is the text that a bucket's name or an ARN is mapped to: `directory:/var/mail`,
`https://…`, `python:handlers.py:check`, `aws`. Backends interpret it; services only pass it on.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from sendback.errors import SendbackError
from sendback.mail.printable import printable
from sendback.service.rules.content import Content

_SHOWN = 1000  # characters of a partner's text, which may be megabytes long


class ActionFailedError(SendbackError):
    """An action failed. `str` is one line of printable characters.

    `final`: a retry would not help; `waits`: the waits before retries that the partner's protocol
    defines, in place of the usual growing ones.
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
        """Store the content durably and atomically; return its location, for display.

        Raises `ActionFailedError`, `ContentGoneError`.
        """


class Topics(Protocol):
    """Where notifications are published."""

    async def check(self, target: str, topic_arn: str) -> None:
        """Raises `UnknownTargetError`, `ActionFailedError`."""

    async def publish(self, target: str, topic_arn: str, subject: str, message: str) -> str:
        """Publish and return what was published where, for display. Raise `ActionFailedError`."""


class Functions(Protocol):
    """The functions that actions call."""

    async def check(self, target: str, function_arn: str) -> None:
        """Raises `UnknownTargetError`, `ActionFailedError`."""

    async def invoke(self, target: str, function_arn: str, event: str, *, wait: bool) -> object:
        """Call a function with the event (JSON); return its parsed result unless asynchronous.

        Raises `ActionFailedError`.
        """


class Mailboxes(Protocol):
    """The mailboxes of WorkMail and Connect actions."""

    async def deliver(
        self, target: str, sender: str, recipients: Sequence[str], content: Content
    ) -> str:
        """Deliver the mail and return the server's reply.

        `sender` is empty for the null reverse-path. Raises `ActionFailedError`,
        `ContentGoneError`.
        """
