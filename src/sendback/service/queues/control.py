"""What operators change in queues: CLI, console and API use it by way of each queue's service."""

from collections.abc import Callable, Sequence

from sendback.errors import SendbackError
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit


class WrongStateError(SendbackError):
    """The change is not possible in the state of the message; `str` is the reason."""


async def change_in_steps(
    store: Store,
    choose: Callable[[str], Unit[Sequence[str]]],
    change: Callable[[tuple[str, ...]], Unit[int]],
    progress: Callable[[int], None],
) -> int:
    """Change rows in steps, so that no other writer waits for long; return how many were changed.

    `choose` makes the unit that reads the next keys behind a key, `change` the one that changes
    them. `progress` is called with the number so far. Raises `StoreUnavailableError`.
    """
    total, after = 0, ""
    while chosen := await store.read(choose(after)):
        if after:
            progress(total)
        after = chosen[-1]
        total += await store.write(change(tuple(chosen)))
    return total
