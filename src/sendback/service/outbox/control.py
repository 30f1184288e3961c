"""The outbox as operators see and change it: CLI, console and API use this."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sendback.clock import Clock
from sendback.service.queues.control import SHOWN_IDS, WrongStateError, change_in_steps, whole_id
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.store import Store
from sendback.store.outbox.control import (
    ChangeState,
    ChooseOutbox,
    CountStates,
    FindOutboxMessage,
    Found,
    ListOutbox,
    SearchOutbox,
    Selection,
    find_outbox_ids,
)
from sendback.store.outbox.destinations import Destination, ListDestinations, PauseDestination
from sendback.store.outbox.rows import Attempt, OutboxMessage, OutboxState

_SCANNED = 20_000  # messages for each step of a search: some 30 ms


@dataclass(frozen=True, slots=True)
class Change:
    """A change of state: which one results, from which ones, and why others are refused."""

    state: OutboxState
    origin: tuple[OutboxState, ...]
    otherwise: str


RETRY = Change(
    OutboxState.QUEUED,
    (
        OutboxState.QUEUED,
        OutboxState.HELD,
        OutboxState.FAILED,
        OutboxState.EXPIRED,
        OutboxState.CANCELLED,
    ),
    "it is not sent again",
)
# A filter alone must not send again what failed or was cancelled.
RETRY_WAITING = Change(OutboxState.QUEUED, (OutboxState.QUEUED,), RETRY.otherwise)
HOLD = Change(OutboxState.HELD, (OutboxState.QUEUED,), "only a queued message can be held")
RELEASE = Change(OutboxState.QUEUED, (OutboxState.HELD,), "it is not held")
CANCEL = Change(
    OutboxState.CANCELLED, (OutboxState.QUEUED, OutboxState.HELD), "there is nothing to cancel"
)


class OutboxControl:
    """The messages of the outbox, and the domains that they go to."""

    def __init__(self, store: Store, clock: Clock, lifetime: timedelta) -> None:
        """`lifetime` is how long delivery of a message is tried after a change to `queued`."""
        self._store = store
        self._clock = clock
        self._lifetime = lifetime

    async def list(self, selection: Selection, limit: int) -> Sequence[OutboxMessage]:
        """Return the newest `limit` of the selected messages, the newest first."""
        return await self._store.read(ListOutbox(selection, limit))

    async def search(
        self, selection: Selection, older_than: tuple[datetime, str] | None, limit: int
    ) -> Found:
        """Return some of the selected messages, the newest first; see `SearchOutbox`."""
        return await self._store.read(SearchOutbox(selection, older_than, limit, _SCANNED))

    async def whole_id(self, account_id: str, text: str) -> str:
        """Return the ID that is `text` or begins with it.

        Raise `NotFoundError`, `AmbiguousIdError`.
        """
        return await whole_id(
            self._store,
            "bounce",
            text,
            lambda prefix: find_outbox_ids(account_id, prefix, SHOWN_IDS),
        )

    async def find(self, account_id: str, text: str) -> tuple[OutboxMessage, Sequence[Attempt]]:
        """Return a message, named as in `whole_id`, and its delivery attempts in order."""
        message_id = await self.whole_id(account_id, text)
        found = await self._store.read(FindOutboxMessage(account_id, message_id))
        if found is None:
            raise NotFoundError("bounce", message_id)
        return found

    async def count(self, account_id: str) -> Mapping[OutboxState, int]:
        """Return the number of messages in each state that any is in."""
        return await self._store.read(CountStates(account_id))

    async def change(
        self, change: Change, selection: Selection, progress: Callable[[int], None]
    ) -> int:
        """Change the selected messages and return how many were changed.

        A message that is being delivered at this moment is not changed. `progress` is called with
        the number so far. IDs are named as in `whole_id`. Raise `NotFoundError`,
        `AmbiguousIdError`, and `WrongStateError` for a selection of one ID.
        """
        account_id = selection.account_id
        ids = [await self.whole_id(account_id, text) for text in selection.message_ids]
        selection = replace(selection, message_ids=tuple(ids))
        if len(selection.message_ids) == 1:
            await self._check(change, selection)
        now = self._clock.now()
        expires_at = now + self._lifetime if change.state is OutboxState.QUEUED else None
        return await change_in_steps(
            self._store,
            lambda after: ChooseOutbox(selection, change.origin, after),
            lambda chosen: ChangeState(chosen, change.origin, change.state, now, expires_at),
            progress,
        )

    async def domains(self) -> Sequence[Destination]:
        """Return the domains that mail waits for, or that are blocked or paused, by name."""
        return await self._store.read(ListDestinations())

    async def set_paused(self, domain: str, *, paused: bool) -> bool:
        """Stop delivery to a domain (canonical spelling), or resume it at once.

        Return whether any mail was queued for it, or it was paused, of late.
        """
        return await self._store.write(PauseDestination(domain, paused, self._clock.now()))

    async def _check(self, change: Change, selection: Selection) -> None:
        (message_id,) = selection.message_ids
        message, _ = await self.find(selection.account_id, message_id)
        if message.state not in change.origin:
            raise WrongStateError(f"{message_id} is {message.state.value}: {change.otherwise}")
