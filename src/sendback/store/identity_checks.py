"""What is looked for in DNS: when it is due, and what was found.

Taking what is due moves its date, so that only one process looks; one that dies meanwhile leaves
a row that falls due again. Looking twice would do no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from sendback.clock import (
    from_milliseconds,
    from_optional_milliseconds,
    to_milliseconds,
    to_optional_milliseconds,
)
from sendback.store.tables import identities, identity_checks
from sendback.store.values import CheckKind, IdentityCheck, VerificationStatus

_PROVES = {CheckKind.DOMAIN, CheckKind.DKIM}
_STILL_THERE = {VerificationStatus.SUCCESS, VerificationStatus.TEMPORARY_FAILURE}


@dataclass(frozen=True, slots=True)
class TakeDueChecks:
    """Up to `limit` due checks, longest due first; they fall due again at `until`."""

    now: datetime
    until: datetime
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[IdentityCheck]:
        query = (
            select(identity_checks)
            .where(identity_checks.c.due_at <= to_milliseconds(self.now))
            .order_by(identity_checks.c.due_at)
            .limit(self.limit)
            .with_for_update(skip_locked=True)
        )
        found = [_from_row(row) for row in connection.execute(query)]
        values = {"due_at": to_milliseconds(self.until)}
        for check in found:
            connection.execute(update(identity_checks).where(*_key(check)).values(values))
        return found


@dataclass(frozen=True, slots=True)
class FindChecks:
    """The checks of the account's identities of these names."""

    account_id: str
    names: tuple[str, ...]

    def __call__(self, connection: Connection, /) -> Sequence[IdentityCheck]:
        return find_checks(connection, self.account_id, self.names)


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """Writes down what was found; an identity whose check is gone by now stays as it is.

    A domain is verified when its own token or its DKIM keys are there.
    """

    check: IdentityCheck

    def __call__(self, connection: Connection, /) -> bool:
        check = self.check
        where = update(identity_checks).where(*_key(check))
        if not connection.execute(where.values(_values(check))).rowcount:
            return False
        settle_status(connection, check.account_id, check.identity)
        return True


def ask_check(connection: Connection, check: IdentityCheck) -> None:
    """Begins to look, or begins anew what was given up; what is under way stays as it is."""
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
    settle_status(connection, check.account_id, check.identity)


def drop_check(connection: Connection, account_id: str, identity: str, kind: CheckKind) -> None:
    """Nothing is looked for any more."""
    where = (
        identity_checks.c.account_id == account_id,
        identity_checks.c.identity == identity,
        identity_checks.c.kind == kind.value,
    )
    connection.execute(delete(identity_checks).where(*where))


def find_checks(
    connection: Connection, account_id: str, names: Sequence[str]
) -> list[IdentityCheck]:
    """For units of other modules."""
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
    """Makes an identity's status what its checks say."""
    proofs = {
        check.kind: check.status
        for check in find_checks(connection, account_id, (identity,))
        if check.kind in _PROVES
    }
    if not proofs:
        return
    status = proofs.get(CheckKind.DOMAIN, VerificationStatus.PENDING)
    if _STILL_THERE.intersection(proofs.values()):
        status = VerificationStatus.SUCCESS
    where = (identities.c.account_id == account_id, identities.c.identity == identity)
    connection.execute(update(identities).where(*where).values(status=status.value))


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
        "reason": check.reason,
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
    )
