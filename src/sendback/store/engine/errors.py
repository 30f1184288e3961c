"""What the store raises."""


class StoreUnavailableError(Exception):
    """The store cannot be read or written at the moment: disk full, locked, unreachable.

    Nothing of the unit of work was done. It is tried anew with the next unit, so the store
    recovers by itself once the cause is gone.
    """
