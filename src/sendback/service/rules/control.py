"""Received messages as operators see and change them: CLI, console and API use this."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sendback.clock import Clock
from sendback.service.queues.control import SHOWN_IDS, WrongStateError, change_in_steps, whole_id
from sendback.service.rules.content import Content
from sendback.service.rules.stored import content_of
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit
from sendback.store.messages.messages import (
    FindBody,
    FindMessage,
    ListMessages,
    ReceivedMessage,
    find_message_ids,
)
from sendback.store.rules.processing import FindProcessing, Processing, ProcessingState, StepRecord
from sendback.store.rules.processing_control import (
    ChooseProcessing,
    DropProcessing,
    RetryProcessing,
)


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A received message: `content` is None once it has expired.

    `processing` and `steps` are None and empty when it came without an active rule set.
    """

    message: ReceivedMessage
    content: Content | None
    processing: Processing | None
    steps: Sequence[StepRecord]


class ProcessingControl:
    """The received messages of all accounts and the state of their processing."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def list(
        self, account_id: str, limit: int, state: ProcessingState | None
    ) -> Sequence[tuple[ReceivedMessage, ProcessingState | None]]:
        """Return the newest messages first, each with the state of its processing, if any."""
        return await self._store.read(ListMessages(account_id, limit, state))

    async def whole_id(self, account_id: str, text: str) -> str:
        """Return the ID that is `text` or begins with it.

        Raise `NotFoundError`, `AmbiguousIdError`.
        """
        return await whole_id(
            self._store,
            "received message",
            text,
            lambda prefix: find_message_ids(account_id, prefix, SHOWN_IDS),
        )

    async def find(self, account_id: str, text: str) -> ShownMessage:
        """Return a message, named as in `whole_id`, with its content and its processing."""
        message_id = await self.whole_id(account_id, text)
        message = await self._store.read(FindMessage(account_id, message_id))
        if message is None:
            raise NotFoundError("received message", message_id)
        body = await self._store.read(FindBody(account_id, message_id))
        content = await content_of(self._store, message, body) if body else None
        processing, steps = await self._store.read(FindProcessing(account_id, message_id)) or (
            None,
            (),
        )
        return ShownMessage(message, content, processing, steps)

    async def retry(
        self, account_id: str, message_ids: Sequence[str], progress: Callable[[int], None]
    ) -> int:
        """Queue held messages again, those named or all, and return how many were held.

        IDs are named as in `whole_id`. Raise `NotFoundError`, `AmbiguousIdError`, and
        `WrongStateError` for a single ID.
        """
        now = self._clock.now()
        message_ids = [await self.whole_id(account_id, text) for text in message_ids]
        states = (ProcessingState.HELD,)
        if len(message_ids) == 1:
            text = "only a held message can be retried"
            await self._check(account_id, message_ids[0], states, text)
        return await self._change(
            account_id,
            message_ids,
            states,
            lambda chosen: RetryProcessing(account_id, chosen, now),
            progress,
        )

    async def drop(
        self,
        account_id: str,
        message_ids: Sequence[str],
        state: ProcessingState | None,
        progress: Callable[[int], None],
    ) -> int:
        """End the processing of held and queued messages (or of those in `state`).

        Return how many were ended; one that is being processed is not changed. IDs are named as in
        `whole_id`. Raise `NotFoundError`, `AmbiguousIdError`, and `WrongStateError` for a single
        ID.
        """
        now = self._clock.now()
        message_ids = [await self.whole_id(account_id, text) for text in message_ids]
        states = (state,) if state else (ProcessingState.HELD, ProcessingState.QUEUED)
        if len(message_ids) == 1:
            await self._check(account_id, message_ids[0], states, "there is nothing to drop")
        return await self._change(
            account_id,
            message_ids,
            states,
            lambda chosen: DropProcessing(account_id, chosen, now, "dropped by the operator"),
            progress,
        )

    async def _check(
        self,
        account_id: str,
        message_id: str,
        states: tuple[ProcessingState, ...],
        otherwise: str,
    ) -> None:
        if await self._store.read(FindMessage(account_id, message_id)) is None:
            raise NotFoundError("received message", message_id)
        found = await self._store.read(FindProcessing(account_id, message_id))
        if found is None:
            raise WrongStateError(f"{message_id} came without an active rule set")
        if found[0].state not in states:
            raise WrongStateError(f"{message_id} is {found[0].state.value}: {otherwise}")

    async def _change(
        self,
        account_id: str,
        message_ids: Sequence[str],
        states: tuple[ProcessingState, ...],
        unit: Callable[[tuple[str, ...]], Unit[int]],
        progress: Callable[[int], None],
    ) -> int:
        return await change_in_steps(
            self._store,
            lambda after: ChooseProcessing(account_id, states, tuple(message_ids), after),
            unit,
            progress,
        )
