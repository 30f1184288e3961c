"""How the result of a DNS query changes the status of an identity check. Pure.

Theory of operation. A check begins as Pending and is repeated, often at first, until the record is
found (Success) or 72 hours are over (Failed: it has to be requested again). A record that was found
is checked once a day. When a server answers that the record is missing, the check is
TemporaryFailure for 72 hours (Success for a domain's token, for which SES has no such status), then
Failed. A query that fails proves nothing: it changes only a check that has never succeeded, at the
end of its 72 hours.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto

from sendback.store.identities.checks import CheckKind, IdentityCheck
from sendback.store.identities.identities import VerificationStatus

VERIFICATION_PERIOD = timedelta(hours=72)  # SES developer guide: "up to 72 hours"
SOONEST, _LATEST = timedelta(minutes=1), timedelta(hours=1)
_REPEAT, _REPEAT_MISSING = timedelta(hours=24), timedelta(hours=1)

_Status = VerificationStatus


class Presence(Enum):
    """Whether a record is in DNS. UNKNOWN: the query failed."""

    FOUND = auto()
    ABSENT = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of a query, and the reason when the record is not as expected."""

    presence: Presence
    reason: str = ""


def updated(check: IdentityCheck, seen: Observation, now: datetime) -> IdentityCheck:
    """Return the check as it is after an observation."""
    checked = replace(check, checked_at=now, reason=seen.reason)
    if seen.presence is Presence.FOUND:
        return replace(checked, status=_Status.SUCCESS, away_since=None, due_at=now + _REPEAT)
    if check.status in {_Status.SUCCESS, _Status.TEMPORARY_FAILURE}:
        return _missing(checked, seen, now)
    age = now - check.asked_at
    if age >= VERIFICATION_PERIOD:
        return replace(checked, status=_Status.FAILED, due_at=None)
    return replace(checked, due_at=now + min(max(age / 10, SOONEST), _LATEST))


def _missing(check: IdentityCheck, seen: Observation, now: datetime) -> IdentityCheck:
    again = replace(check, due_at=now + _REPEAT_MISSING)
    if seen.presence is Presence.UNKNOWN:
        return again
    since = check.away_since or now
    if now - since >= VERIFICATION_PERIOD:
        return replace(check, status=_Status.FAILED, away_since=since, due_at=None)
    is_domain = check.kind is CheckKind.DOMAIN
    status = _Status.SUCCESS if is_domain else _Status.TEMPORARY_FAILURE
    return replace(again, status=status, away_since=since)
