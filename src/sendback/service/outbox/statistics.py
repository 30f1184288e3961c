"""Sending statistics. SES API: GetSendQuota, GetSendStatistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sendback.clock import Clock
from sendback.store.engine.store import Store
from sendback.store.outbox.queue import CountByBucket, CountSince

_BUCKET_MILLISECONDS = 15 * 60 * 1000
_STATISTICS_SPAN = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Quota:
    """Messages in 24 hours (allowed, and sent), messages a second (allowed)."""

    max_24_hour_send: float
    max_send_rate: float
    sent_last_24_hours: float


@dataclass(frozen=True, slots=True)
class DataPoint:
    """Fifteen minutes: attempts to send, and those refused for good."""

    timestamp: datetime
    delivery_attempts: int
    bounces: int


class SendingStatistics:
    """The sending statistics of accounts."""

    def __init__(self, store: Store, clock: Clock, *, quota: float, rate: float) -> None:
        """`quota` and `rate` are reported as given: clients divide by them."""
        self._store = store
        self._clock = clock
        self._quota = quota
        self._rate = rate

    async def quota(self, account_id: str) -> Quota:
        since = self._clock.now() - timedelta(hours=24)
        sent = await self._store.read(CountSince(account_id, since))
        return Quota(self._quota, self._rate, float(sent))

    async def statistics(self, account_id: str) -> Sequence[DataPoint]:
        since = self._clock.now() - _STATISTICS_SPAN
        rows = await self._store.read(CountByBucket(account_id, since, _BUCKET_MILLISECONDS))
        return [DataPoint(start, count, failed) for start, count, failed in rows]
