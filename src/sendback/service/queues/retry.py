"""Retries: exponential backoff with jitter, up to a longest wait."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

_JITTER = 0.2
# Not the module's generator, which belongs to the program: tests seed it and compare its state.
_GENERATOR = random.SystemRandom()


def random_share() -> float:
    """Return a random number from 0 to 1: the jitter."""
    return _GENERATOR.random()


@dataclass(frozen=True, slots=True)
class Backoff:
    """`first` is the wait after the first attempt; each is twice the one before it."""

    first: timedelta
    longest: timedelta

    def wait(self, attempts: int, jitter: float) -> timedelta:
        """Return the wait after so many attempts; `jitter`, from 0 to 1, varies it by a fifth.

        Without jitter, everything that failed at one moment would be retried at one moment.
        """
        doublings = min(attempts - 1, 30)
        wait = min(self.first * (1 << doublings), self.longest)
        return wait * (1 - _JITTER + 2 * _JITTER * jitter)

    def next_try(
        self, attempts: int, now: datetime, expires_at: datetime, jitter: float
    ) -> datetime | None:
        """Return the time of the next try, or None if the message has expired by then."""
        moment = now + self.wait(attempts, jitter)
        return moment if moment <= expires_at else None
