"""Dates as mail writes them (RFC 5322 §3.3): four-digit year, numeric zone."""

from datetime import UTC, datetime
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def format_date(moment: datetime) -> str:
    """`Thu, 01 Oct 2015 13:48:58 +0000`. Independent of the locale, unlike `strftime`."""
    return _format_second(moment.replace(microsecond=0))


@lru_cache(maxsize=64)  # a bounce writes a moment several times, and many mails share a second
def _format_second(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return (
        f"{_DAYS[utc.weekday()]}, {utc.day:02} {_MONTHS[utc.month - 1]} {utc.year:04} "
        f"{utc.hour:02}:{utc.minute:02}:{utc.second:02} +0000"
    )
