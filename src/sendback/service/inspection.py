"""Received and outgoing mail as tests look at it: scan, delete."""

from collections.abc import AsyncIterator, Sequence

from sendback.service.queues.control import WrongStateError
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.store import Store
from sendback.store.messages.inspection import Deleted, DeleteMessages, ScanMessages
from sendback.store.messages.messages import FindMessage, ReceivedMessage
from sendback.store.outbox.control import FindOutboxMessage, Selection
from sendback.store.outbox.inspection import DeleteOutgoing, ScanOutbox
from sendback.store.outbox.rows import Attempt, OutboxMessage
from sendback.store.rules.processing import ProcessingState

_CHUNK = 100


class MailInspection:
    """Reads and deletes the mail of an account."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def messages(
        self, account_id: str, after: str
    ) -> AsyncIterator[tuple[ReceivedMessage, ProcessingState | None]]:
        """Yield received messages behind an ID, the oldest first."""
        while True:
            found = await self._store.read(ScanMessages(account_id, after, _CHUNK))
            for entry in found:
                yield entry
            if len(found) < _CHUNK:
                return
            after = found[-1][0].message_id

    async def outgoing(
        self, selection: Selection, after: str, *, only_bounces: bool
    ) -> AsyncIterator[OutboxMessage]:
        """Yield selected outgoing mail behind an ID, the oldest first."""
        while True:
            unit = ScanOutbox(selection, after, _CHUNK, only_bounces)
            found = await self._store.read(unit)
            for message in found:
                yield message
            if len(found) < _CHUNK:
                return
            after = found[-1].message_id

    async def find_outgoing(
        self, account_id: str, message_id: str
    ) -> tuple[OutboxMessage, Sequence[Attempt]]:
        """Return outgoing mail by its whole ID. Raise `NotFoundError`."""
        found = await self._store.read(FindOutboxMessage(account_id, message_id))
        if found is None:
            raise NotFoundError("bounce", message_id)
        return found

    async def delete_message(self, account_id: str, message_id: str) -> None:
        """Delete a received message, named by its whole ID.

        Raise `NotFoundError`, and `WrongStateError` while its rules are not finished.
        """
        if await self._store.read(FindMessage(account_id, message_id)) is None:
            raise NotFoundError("received message", message_id)
        deleted = await self._delete(DeleteMessages(account_id, message_id=message_id))
        if deleted.kept:
            raise WrongStateError(f"{message_id} is queued: its rules are not finished")

    async def delete_messages(self, account_id: str) -> tuple[int, int]:
        """Delete an account's received messages; return how many, and how many are kept."""
        count = kept = 0
        after: str | None = ""
        while after is not None:
            deleted = await self._delete(DeleteMessages(account_id, after))
            count, kept, after = count + deleted.count, kept + deleted.kept, deleted.after
        return count, kept

    async def delete_outgoing(self, account_id: str, message_id: str | None) -> None:
        """Delete outgoing mail that is not queued: one, or all."""
        while await self._store.write(DeleteOutgoing(account_id, message_id)):
            pass

    async def _delete(self, unit: DeleteMessages) -> Deleted:
        deleted = await self._store.write(unit)
        if deleted.blobs:
            await self._store.contents.remove(deleted.blobs)
        return deleted
