"""The errors of the store.

A unit of work that cannot do what it is asked to do raises a `RefusedError`, and changes nothing.
"""

from sendback.errors import SendbackError


class StoreUnavailableError(SendbackError):
    """The store cannot be read or written at the moment: disk full, locked, unreachable.

    The unit of work had no effect. The next unit is tried on a fresh connection, so the store
    recovers without a restart once the cause is gone.
    """


class RefusedError(SendbackError):
    """Base class of the reasons why a unit of work does nothing."""


class NotFoundError(RefusedError):
    """There is no such thing: `kind` is its table's noun, `name` its key."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is no {kind} {name}")
        self.kind = kind
        self.name = name


class AlreadyExistsError(RefusedError):
    """There is a thing of this name already: `kind` is its table's noun, `name` its key."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"there is a {kind} {name} already")
        self.kind = kind
        self.name = name


class LimitReachedError(RefusedError):
    """The account, or the thing that `kind` belongs to, has `limit` of them already."""

    def __init__(self, kind: str, limit: int) -> None:
        super().__init__(f"there may be at most {limit} of: {kind}")
        self.kind = kind
        self.limit = limit


class InUseError(RefusedError):
    """The thing cannot be deleted while it is in use."""


class RateLimitedError(RefusedError):
    """The account has used its rate; the call may be repeated later."""


class LeaseLostError(RefusedError):
    """The lease had ended, and another worker may have the row: the result is not recorded."""
