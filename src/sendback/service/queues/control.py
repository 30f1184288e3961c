"""What operators change in queues: CLI, console and API use it by way of each queue's service."""

from collections.abc import Callable, Sequence

from sendback.errors import SendbackError
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.store import Store
from sendback.store.engine.transactions import Unit

SHOWN_IDS = 4  # with one prefix; one fewer is named


class WrongStateError(SendbackError):
    """The change is not possible in the state of the message; `str` is the reason."""


class AmbiguousIdError(SendbackError):
    """Several IDs begin with a text that must be a whole ID or a unique prefix of one."""

    def __init__(self, text: str, found: Sequence[str]) -> None:
        """`found` are the first of these IDs, at most `SHOWN_IDS`."""
        named, more = found[: SHOWN_IDS - 1], ", …" if len(found) == SHOWN_IDS else ""
        super().__init__(f"several IDs begin with {text}: {', '.join(named)}{more}")


async def whole_id(
    store: Store, kind: str, text: str, find: Callable[[str], Unit[Sequence[str]]]
) -> str:
    """Return the ID that is `text` or begins with it, with or without `…` at its end.

    `find` makes the unit that returns the first IDs with a prefix, in order. Raise `NotFoundError`
    with `kind`, `AmbiguousIdError`.
    """
    prefix = text.strip().removesuffix("…").removesuffix("...")
    found = await store.read(find(prefix)) if prefix else ()
    if not found:
        raise NotFoundError(kind, text)
    if found[0] != prefix and len(found) > 1:
        raise AmbiguousIdError(prefix, found)
    return found[0]


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
