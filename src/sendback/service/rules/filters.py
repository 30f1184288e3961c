"""IP filters as the API changes them. SES API: the receipt-filter operations."""

from collections.abc import Sequence

from sendback.aws.errors import SesError
from sendback.clock import Clock
from sendback.receipt.constraints import MAX_FILTERS, already_exists
from sendback.receipt.filters import IpFilter, check_filter
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.store.engine.errors import AlreadyExistsError, LimitReachedError
from sendback.store.engine.store import Store
from sendback.store.rules.filters import AddFilter, DeleteFilter, ListFilters


class Filters:
    """The IP filters of all accounts."""

    def __init__(self, store: Store, clock: Clock, events: EventBus) -> None:
        self._store = store
        self._clock = clock
        self._events = events

    async def create(self, account_id: str, entry: IpFilter) -> None:
        """Add a filter. Raises `SesError`: AlreadyExists, LimitExceeded, and for a bad range."""
        check_filter(entry)
        try:
            await self._store.write(AddFilter(account_id, entry, MAX_FILTERS))
        except AlreadyExistsError:
            raise already_exists("Filter", entry.name) from None
        except LimitReachedError:
            raise too_many_filters() from None
        self._report(account_id, f"filter {entry.name} is created")

    async def delete(self, account_id: str, name: str) -> None:
        """Delete a filter if there is one of this name."""
        if await self._store.write(DeleteFilter(account_id, name)):
            self._report(account_id, f"filter {name} is deleted")

    async def list(self, account_id: str) -> Sequence[IpFilter]:
        """Return the account's filters, by name."""
        return await self._store.read(ListFilters(account_id))

    def _report(self, account_id: str, change: str) -> None:
        self._events.publish(reports.setting_changed(self._clock.now(), change, account_id))


def too_many_filters() -> SesError:
    """Return LimitExceeded, for more filters than an account may have."""
    return SesError("LimitExceeded", "Too many filters")
