"""The errors of the store.

A unit of work that refuses its request raises a `RefusedError` and changes nothing.
"""

from dataclasses import dataclass
from enum import Enum, auto

from sendback.errors import InvalidInputError, SendbackError


class DatabaseUrlError(InvalidInputError):
    """The URL of the database cannot be used: a typo, or its driver is not installed."""


class StoreUnavailableError(SendbackError):
    """The store cannot be read or written at the moment: disk full, locked, unreachable.

    The unit of work had no effect. The next unit is tried on a fresh connection, so the store
    recovers without a restart once the cause is gone.
    """


class CommitUnknownError(StoreUnavailableError):
    """The connection was lost during COMMIT: the unit may have had its effect.

    It is never run again by the store. How each caller is safe: docs/architecture.md, "Lost
    connections".
    """


class FailureKind(Enum):
    """What an error of the database means for the transaction that met it."""

    CONFLICT = auto()  # with another transaction: run each unit again
    LOST = auto()  # the connection: nothing was committed before COMMIT, a new connection may work
    UNAVAILABLE = auto()  # the database cannot be used at the moment


@dataclass(frozen=True, slots=True)
class Failure:
    """The kind of an error, and why the store is unavailable, with what to do about it.

    `reason` is None for a conflict that, when it persists, is the unit's own error.
    """

    kind: FailureKind
    reason: str | None


class RefusedError(SendbackError):
    """Base class of the errors by which a unit of work refuses its request."""


class NotFoundError(RefusedError):
    """The object does not exist: `kind` is what it is, `name` its key."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name}")
        self.kind = kind
        self.name = name


class AlreadyExistsError(RefusedError):
    """An object of this name exists already: `kind` is what it is, `name` its key."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is a {kind} {name} already")
        self.kind = kind
        self.name = name


class LimitReachedError(RefusedError):
    """The account, or the object that `kind` names, has `limit` of them already."""

    def __init__(self, kind: str, limit: int) -> None:
        super().__init__(f"there may be at most {limit} of: {kind}")
        self.kind = kind
        self.limit = limit


class InUseError(RefusedError):
    """The object cannot be deleted while it is in use."""


class RateLimitedError(RefusedError):
    """The account has reached its rate limit; the call may be repeated later."""


class ClaimLostError(RefusedError):
    """The claim on a content was withdrawn, as it was too old: no message may name the content."""


class LeaseLostError(RefusedError):
    """The lease had ended, so the result is not recorded: another worker may have the row."""
