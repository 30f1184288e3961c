"""The DNS checks of identities: when each is due, and its result.

Taking a due check moves its date, so that one process does the lookup; if that process dies, the
check becomes due again. A second lookup does no harm. A check that breaks its process is set aside
after a few tries, as in the other queues (`leasing`): it has no due date any more.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, case, delete, insert, select, update

from sendback.clock import (
    from_milliseconds,
    from_optional_milliseconds,
    to_milliseconds,
    to_optional_milliseconds,
)
from sendback.store.engine.changes import UNWATCHED
from sendback.store.engine.column_types import without_nul
from sendback.store.engine.leasing import DIED, MOST_TRIES, SUSPECT_TRIES, penalty
from sendback.store.engine.locking import has_row_locks, lock_account, lock_accounts
from sendback.store.engine.tables import identities, identity_checks
from sendback.store.identities.identities import VerificationStatus


class CheckKind(StrEnum):
    """What is looked up: the domain's token, its DKIM keys, the MX of its MAIL FROM domain."""

    DOMAIN = "domain"
    DKIM = "dkim"
    MAIL_FROM = "mail_from"


@dataclass(frozen=True, slots=True)
class IdentityCheck:
    """A DNS check of an identity.

    `due_at` is when the next lookup is due; None: there is none. `away_since` is when records that
    had been found were first missing. `reason` is why they were not found. `tries` is the number of
    lookups begun since a result was recorded: see `store/engine/leasing.py`.
    """

    account_id: str
    identity: str
    kind: CheckKind
    status: VerificationStatus
    asked_at: datetime
    due_at: datetime | None
    checked_at: datetime | None = None
    away_since: datetime | None = None
    reason: str = ""
    tries: int = 0


log = logging.getLogger(__name__)

_SET_ASIDE_AT_ONCE = 100

# For updates that leave the status as it is: no cache holds the dates of a check.
_UPDATE_DATES = update(identity_checks).execution_options(**UNWATCHED)
_PROVES = (CheckKind.DOMAIN.value, CheckKind.DKIM.value)
_STILL_THERE = {VerificationStatus.SUCCESS.value, VerificationStatus.TEMPORARY_FAILURE.value}


@dataclass(frozen=True, slots=True)
class TakeDueChecks:
    """Take up to `limit` due checks without suspects, longest due first; due again at `until`."""

    now: datetime
    until: datetime
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[IdentityCheck]:
        trusted = identity_checks.c.tries < SUSPECT_TRIES
        return _take(connection, _due(self.now).where(trusted).limit(self.limit), self)


@dataclass(frozen=True, slots=True)
class TakeSuspectCheck:
    """Take the suspect that has been due longest, if any; set aside what was taken too often."""

    now: datetime
    until: datetime

    def __call__(self, connection: Connection, /) -> IdentityCheck | None:
        tries = identity_checks.c.tries
        dead = _due(self.now).where(tries >= MOST_TRIES).limit(_SET_ASIDE_AT_ONCE)
        if has_row_locks(connection):
            # The accounts first, as setting aside may change the identity.
            lock_accounts(connection, {row.account_id for row in connection.execute(dead)})
        for row in connection.execute(dead.with_for_update(skip_locked=True)).all():
            _set_aside(connection, row, DIED)
        suspect = _due(self.now).where(tries >= SUSPECT_TRIES, tries < MOST_TRIES).limit(1)
        taken = _take(connection, suspect, self)
        return taken[0] if taken else None


@dataclass(frozen=True, slots=True)
class FailCheck:
    """Delay a check on which the process failed, longer each time; then set it aside."""

    check: IdentityCheck
    reason: str
    now: datetime
    step: timedelta

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.check.account_id)
        row = connection.execute(
            select(identity_checks).where(*_key(self.check)).with_for_update()
        ).first()
        if row is None:
            return
        if row.tries >= MOST_TRIES:
            _set_aside(connection, row, self.reason)
            return
        due_at = self.now + penalty(self.step, row.tries)
        values = {"due_at": to_milliseconds(due_at), "reason": without_nul(self.reason)}
        connection.execute(_UPDATE_DATES.where(*_row_key(row)).values(values))


@dataclass(frozen=True, slots=True)
class GiveBackCheck:
    """Requeue a check that was not made, due then; the try is not counted."""

    check: IdentityCheck
    due_at: datetime

    def __call__(self, connection: Connection, /) -> None:
        tries = identity_checks.c.tries
        values = {
            "due_at": to_milliseconds(self.due_at),
            "tries": case((tries > 0, tries - 1), else_=0),
        }
        connection.execute(_UPDATE_DATES.where(*_key(self.check)).values(values))


@dataclass(frozen=True, slots=True)
class FindChecks:
    """Return the checks of the account's identities of these names."""

    account_id: str
    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Sequence[IdentityCheck]:
        return find_checks(connection, self.account_id, self.names)


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """Record the result of a check, and update the identity's status.

    `result` makes it of the check as it is now: another process may have recorded a result since it
    was read as `check`. Returns the new check, or None and changes nothing if the check was deleted
    or requested anew meanwhile: the result is of other records. A domain is verified when its token
    or its DKIM keys are in DNS.
    """

    check: IdentityCheck
    result: Callable[[IdentityCheck], IdentityCheck]

    def __call__(self, connection: Connection, /) -> IdentityCheck | None:
        lock_account(connection, self.check.account_id)
        row = connection.execute(
            select(identity_checks).where(*_key(self.check)).with_for_update()
        ).first()
        if row is None or row.asked_at != to_milliseconds(self.check.asked_at):
            return None
        check = self.result(_from_row(row))
        status = check.status.value
        is_new = identity_checks.c.status != status
        connection.execute(
            update(identity_checks).where(*_key(check), is_new).values(status=status)
        )
        connection.execute(_UPDATE_DATES.where(*_key(check)).values(_values(check)))
        settle_status(connection, check.account_id, check.identity)
        return check


def ask_check(connection: Connection, check: IdentityCheck) -> None:
    """Add a check, or restart one that failed; a check in progress is unchanged.

    The caller has locked the account.

    A check that was set aside is due again and keeps its status. A new `check` without a due date
    replaces the existing one.
    """
    found = find_checks(connection, check.account_id, (check.identity,))
    before = next((entry for entry in found if entry.kind is check.kind), None)
    if before is None:
        key = {
            "account_id": check.account_id,
            "identity": check.identity,
            "kind": check.kind.value,
        }
        connection.execute(insert(identity_checks), {**key, **_values(check)})
    elif before.status is VerificationStatus.FAILED or check.due_at is None:
        connection.execute(update(identity_checks).where(*_key(check)).values(_values(check)))
    elif before.tries >= MOST_TRIES:
        values = {"due_at": to_milliseconds(check.due_at), "tries": 0}
        connection.execute(update(identity_checks).where(*_key(check)).values(values))
    settle_status(connection, check.account_id, check.identity)


def drop_check(connection: Connection, account_id: str, identity: str, kind: CheckKind) -> None:
    """Delete a check, if it exists."""
    where = (
        identity_checks.c.account_id == account_id,
        identity_checks.c.identity == identity,
        identity_checks.c.kind == kind.value,
    )
    connection.execute(delete(identity_checks).where(*where))


def find_checks(
    connection: Connection, account_id: str, names: Sequence[str]
) -> list[IdentityCheck]:
    """Return the checks of the account's identities of these names."""
    query = (
        select(identity_checks)
        .where(
            identity_checks.c.account_id == account_id,
            identity_checks.c.identity.in_(names),
        )
        .order_by(identity_checks.c.identity, identity_checks.c.kind)
    )
    return [_from_row(row) for row in connection.execute(query)]


def settle_status(connection: Connection, account_id: str, identity: str) -> None:
    """Set an identity's status to the result of its checks, if it has any.

    The caller has locked the account: two results of one identity must not miss each other.
    """
    query = select(identity_checks.c.kind, identity_checks.c.status).where(
        identity_checks.c.account_id == account_id,
        identity_checks.c.identity == identity,
        identity_checks.c.kind.in_(_PROVES),
    )
    proofs = {row.kind: row.status for row in connection.execute(query)}
    if not proofs:
        return
    status = proofs.get(CheckKind.DOMAIN.value, VerificationStatus.PENDING.value)
    if _STILL_THERE.intersection(proofs.values()):
        status = VerificationStatus.SUCCESS.value
    where = (identities.c.account_id == account_id, identities.c.identity == identity)
    # Most results confirm the status, and must not empty the caches of all processes.
    where_new = update(identities).where(*where, identities.c.status != status)
    connection.execute(where_new.values(status=status))


def _due(now: datetime) -> Select[Any]:
    """Return the query for the due rows, longest due first."""
    return (
        select(identity_checks)
        .where(identity_checks.c.due_at <= to_milliseconds(now))
        .order_by(identity_checks.c.due_at)
    )


def _take(
    connection: Connection, query: Select[Any], term: TakeDueChecks | TakeSuspectCheck
) -> Sequence[IdentityCheck]:
    """Take the rows and return the checks; a row that cannot be read is set aside."""
    step = (term.until - term.now) / 3
    found: list[IdentityCheck] = []
    for row in connection.execute(query.with_for_update(skip_locked=True)).all():
        try:
            check = _from_row(row)
        except Exception as error:
            log.exception("the %s check of %s cannot be read", row.kind, row.identity)
            _set_aside(connection, row, f"the row cannot be read: {error!r}")
            continue
        due_at = term.until + penalty(step, row.tries)
        values = {"due_at": to_milliseconds(due_at), "tries": row.tries + 1}
        connection.execute(_UPDATE_DATES.where(*_row_key(row)).values(values))
        found.append(replace(check, tries=row.tries + 1))
    return found


def _set_aside(connection: Connection, row: Any, reason: str) -> None:
    """End the lookups of a check. A successful one keeps its status: no lookup disproved it."""
    log.error("the %s check of %s is set aside: %s", row.kind, row.identity, reason)
    values: dict[str, object] = {
        "due_at": None,
        "reason": without_nul(reason),
        "tries": MOST_TRIES,
    }
    if row.status == VerificationStatus.PENDING.value:
        values["status"] = VerificationStatus.FAILED.value
    connection.execute(update(identity_checks).where(*_row_key(row)).values(values))
    settle_status(connection, row.account_id, row.identity)


def _row_key(row: Any) -> tuple[Any, ...]:
    return (
        identity_checks.c.account_id == row.account_id,
        identity_checks.c.identity == row.identity,
        identity_checks.c.kind == row.kind,
    )


def _key(check: IdentityCheck) -> tuple[Any, ...]:
    return (
        identity_checks.c.account_id == check.account_id,
        identity_checks.c.identity == check.identity,
        identity_checks.c.kind == check.kind.value,
    )


def _values(check: IdentityCheck) -> dict[str, object]:
    return {
        "status": check.status.value,
        "asked_at": to_milliseconds(check.asked_at),
        "checked_at": to_optional_milliseconds(check.checked_at),
        "away_since": to_optional_milliseconds(check.away_since),
        "due_at": to_optional_milliseconds(check.due_at),
        "reason": without_nul(check.reason),
        "tries": 0,
    }


def _from_row(row: Any) -> IdentityCheck:
    return IdentityCheck(
        account_id=row.account_id,
        identity=row.identity,
        kind=CheckKind(row.kind),
        status=VerificationStatus(row.status),
        asked_at=from_milliseconds(row.asked_at),
        due_at=from_optional_milliseconds(row.due_at),
        checked_at=from_optional_milliseconds(row.checked_at),
        away_since=from_optional_milliseconds(row.away_since),
        reason=row.reason,
        tries=row.tries,
    )
