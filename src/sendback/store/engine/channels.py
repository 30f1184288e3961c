"""Short messages between the processes of an installation: workers, nodes and commands.

A message is `SENDER SUBJECT TEXT`. It goes to all other processes that have called `start`, may be
lost, and proves nothing: what is stored is the truth. Messages are not trusted: one that cannot be
read is ignored, and logged.

`datagrams.Datagrams` connects the processes that share a data directory, `notifications` those that
share a PostgreSQL.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from time import monotonic

from sendback.log_limits import LogLimiter

log = logging.getLogger(__name__)

_MESSAGE = re.compile(r"(?P<sender>[\w.:-]{1,80}) (?P<subject>[a-z]+)(?: (?P<text>.*))?", re.DOTALL)

Handler = Callable[[str, str], None]


class Channel(ABC):
    """Sends messages to the other processes, and gives theirs to handlers.

    Everything but `hint` is for the thread of the event loop.
    """

    def __init__(self, name: str, most_octets: int) -> None:
        """`name` is this process's, unique; `most_octets` is the longest message."""
        self.name = name
        self._most_octets = most_octets
        self._handlers: dict[str, Handler] = {}
        self._limiter = LogLimiter()

    def handle(self, subject: str, handler: Handler) -> None:
        """Let `handler` take the messages of a subject: the sender and the text.

        It may raise `ValueError` for a text that it cannot read.
        """
        self._handlers[subject] = handler

    def capacity(self, subject: str) -> int:
        """Return the number of octets that the text of a message of the subject may have."""
        return self._most_octets - len(self.message(subject, "").encode())

    def message(self, subject: str, text: str) -> str:
        """Return the message as it is sent."""
        return f"{self.name} {subject} {text}"

    @abstractmethod
    def start(self) -> None:
        """Begin to receive. Messages are sent without it too."""

    @abstractmethod
    def hint(self, subject: str, text: str) -> None:
        """Send a message to all, without waiting: what is not taken at once is lost.

        May be called from any thread.
        """

    @abstractmethod
    def send(self, subject: str, text: str, to: Collection[str] | None = None) -> None:
        """Send a message to those processes, or to all; others may get it too."""

    @abstractmethod
    async def drain(self) -> None:
        """Wait until what was sent is on its way."""

    @abstractmethod
    def close(self) -> None:
        """End receiving. May be called again."""

    def _dispatch(self, message: str) -> None:
        """Give a message that has arrived to its handler."""
        found = _MESSAGE.fullmatch(message)
        if found is None:
            self._ignore("it is no message of ours")
        elif found["sender"] != self.name and found["subject"] in self._handlers:
            try:
                self._handlers[found["subject"]](found["sender"], found["text"] or "")
            except (ValueError, RecursionError, OverflowError) as error:
                self._ignore(str(error))

    def _ignore(self, reason: str) -> None:
        more = self._limiter.check("messages", monotonic())
        if more is not None:
            log.warning("message_ignored reason=%r%s", reason[:200], more)
