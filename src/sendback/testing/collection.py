"""Collections of what has arrived, which tests wait on."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from sendback.mail.address import address_key

T = TypeVar("T")

WAIT_SECONDS = 5.0
_FIRST_PAUSE = 0.002
_LONGEST_PAUSE = 0.02


class NotArrivedError(AssertionError):
    """What a test waited for did not arrive in time; `str` lists what did."""


class UnexpectedError(AssertionError):
    """Something arrived that should not have; `str` lists it."""


class Collection(Generic[T]):
    """What has arrived so far, oldest first. Iterate over it, or wait for more."""

    def __init__(
        self,
        noun: str,
        fetch: Callable[[], Sequence[T]],
        describe: Callable[[T], str],
        explain: Callable[[], str] = str,
    ) -> None:
        """`explain` returns more about the state of the server, for a failed wait."""
        self._noun = noun
        self._fetch = fetch
        self._describe = describe
        self._explain = explain
        self._hidden: set[object] = set()

    def clear(self) -> None:
        """Forget what has arrived so far; on the server it stays."""
        self._hidden.update(self._key(item) for item in self._fetch())

    def forget_hidden(self) -> None:
        """Undo `clear`: the server is empty now."""
        self._hidden.clear()

    def __iter__(self) -> Iterator[T]:
        return iter(self._visible())

    def __len__(self) -> int:
        return len(self._visible())

    def __getitem__(self, number: int) -> T:
        return self._visible()[number]

    def __repr__(self) -> str:
        return f"<{len(self)} {self._noun}>"

    def _key(self, item: T) -> object:
        return id(item)

    def _visible(self) -> Sequence[T]:
        return [item for item in self._fetch() if self._key(item) not in self._hidden]

    def _wait(self, matches: Callable[[T], bool], what: str, timeout: float) -> T:
        deadline, pause = time.monotonic() + timeout, _FIRST_PAUSE
        while True:
            found = next((item for item in self._visible() if matches(item)), None)
            if found is not None:
                return found
            if time.monotonic() >= deadline:
                raise NotArrivedError(self._report(f"no {what} arrived in {timeout:g} s"))
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _wait_for_none(self, matches: Callable[[T], bool], what: str, within: float) -> None:
        deadline = time.monotonic() + within
        while True:
            if any(matches(item) for item in self._visible()):
                raise UnexpectedError(self._report(f"{what} arrived, and none was expected"))
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _LONGEST_PAUSE))

    def _report(self, reason: str) -> str:
        lines = [f"  {self._describe(item)}" for item in self._visible()]
        heading = f"{self._noun} so far:" if lines else f"{self._noun} so far: none"
        return "\n".join(filter(None, [reason, heading, *lines, self._explain()]))


def is_among(wanted_address: str | None, *addresses: str) -> bool:
    """Return whether the address is among the others in any spelling, or is None."""
    if wanted_address is None:
        return True
    return address_key(wanted_address) in {address_key(address) for address in addresses}


def wanted(noun: str, **criteria: object) -> str:
    """Return the text for an item that is waited for: `bounce with to=ann@a.example`."""
    given = [f"{name}={value}" for name, value in criteria.items() if value is not None]
    return f"{noun} with {', '.join(given)}" if given else noun
