"""Storing messages: content into a spool as it comes, whole messages into the store."""

from collections.abc import Callable

from sendback.service.receiving.receiving import HeaderTooLargeError, HopLimitError, Receiving
from sendback.service.receiving.spool import Spool
from sendback.smtp import replies
from sendback.smtp.decisions import Receivers
from sendback.smtp.disk_space import DiskSpace
from sendback.smtp.events import MessageReceived
from sendback.smtp.replies import Reply
from sendback.smtp.scheduling import ConcurrencyLimit
from sendback.store.engine.content.model import ContentUnavailableError
from sendback.store.engine.errors import StoreUnavailableError

# Messages stored concurrently: each has up to 256 KiB in memory meanwhile. Others wait. One commit
# takes 128 (`store.engine.transactions`).
_CONCURRENT_MESSAGES = 128

# Why a message is not stored, and the reply to its content.
_FAILURES: dict[type[Exception], Reply] = {
    ContentUnavailableError: replies.INTERNAL_ERROR,
    StoreUnavailableError: replies.NO_STORAGE,
    OSError: replies.NO_STORAGE,
    HeaderTooLargeError: replies.HEADER_TOO_LARGE,
    HopLimitError: replies.TOO_MANY_HOPS,
}


class IncomingContent:
    """The content of one message while it comes in; `spool` is None once writing has failed."""

    __slots__ = ("_space", "_warn", "spool")

    def __init__(
        self, spool: Spool, space: DiskSpace, warn: Callable[[str, Exception], None]
    ) -> None:
        self.spool: Spool | None = spool
        self._space = space
        self._warn = warn

    def write(self, content: bytes) -> None:
        """Write the next piece. On failure all content is discarded; the reply comes at its end."""
        if self.spool is None:
            return
        try:
            self._space.take(len(content))
            self.spool.write(content)
        except OSError as error:
            self._warn("smtp_content_not_stored", error)
            self.close()

    def close(self) -> None:
        """Discard the content; the store has its own copy of a stored message."""
        if self.spool is not None:
            self.spool.close()
            self.spool = None


class MessageStorage:
    """Stores the messages of all connections."""

    def __init__(
        self, receiving: Receiving, space: DiskSpace, warn: Callable[[str, Exception], None]
    ) -> None:
        """`warn` logs an event with its cause."""
        self._receiving = receiving
        self._space = space
        self._warn = warn
        self._limit = ConcurrencyLimit(_CONCURRENT_MESSAGES)

    def open(self) -> IncomingContent:
        """Return where the content of the next message is written."""
        return IncomingContent(self._receiving.spool(), self._space, self._warn)

    async def store(
        self, message: MessageReceived[Receivers], content: IncomingContent | None
    ) -> str | Reply:
        """Return the message ID once the message is durable, or a refusal."""
        if content is None or content.spool is None:
            return replies.NO_STORAGE
        try:
            if not self._limit.try_acquire():
                await self._limit.acquire()
            try:
                return await self._receiving.receive(message.envelope, message.notes, content.spool)
            finally:
                self._limit.release()
        except tuple(_FAILURES) as error:
            refusal = next(reply for kind, reply in _FAILURES.items() if isinstance(error, kind))
            if not refusal.is_error:
                self._warn("smtp_message_not_stored", error)
            return refusal
