"""The rate limits of verification mails, checked by counting the rows of the outbox.

A verification mail is a row of the outbox that belongs to no received message. The outbox keeps
its rows for the setting `history`, whether the mail was delivered or not.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, text

from sendback.clock import to_milliseconds
from sendback.mail.address import AddressError, parse_address
from sendback.store.engine.errors import RefusedError
from sendback.store.engine.locking import lock_account, lock_name
from sendback.store.engine.tables import outbox

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
# A literal: SQLite does not use the partial index for a parameter.
_IS_VERIFICATION = text("original_message_id = ''")


@dataclass(frozen=True, slots=True)
class VerificationLimits:
    """The limits: of an account in an hour, to an address in a day, of all accounts in an hour.

    0: no limit.
    """

    per_account: int = 0
    per_address: int = 0
    in_all: int = 0


UNLIMITED = VerificationLimits()


class TooManyVerificationMailsError(RefusedError):
    """A limit is reached; the text says which."""


def check_verification_limits(
    connection: Connection, limits: VerificationLimits, account_id: str, to: str, now: datetime
) -> None:
    """Raise `TooManyVerificationMailsError` when one more mail would exceed a limit.

    Call it in the transaction that queues the mail to `to`, before the mail is queued.
    """
    if limits == UNLIMITED:
        return
    lock_account(connection, account_id)
    if limits.in_all or limits.per_address:
        lock_name(connection, "verification mails")  # of all accounts
    if limits.per_account and _count(connection, now - _HOUR, account_id) >= limits.per_account:
        raise TooManyVerificationMailsError(
            f"Maximum of {limits.per_account} verification mails an hour reached"
        )
    if limits.in_all and _count(connection, now - _HOUR) >= limits.in_all:
        raise TooManyVerificationMailsError("Maximum of verification mails an hour reached")
    if limits.per_address and _count_to(connection, now - _DAY, to) >= limits.per_address:
        raise TooManyVerificationMailsError(
            f"Maximum of {limits.per_address} verification mails a day to this address reached"
        )


def _count(connection: Connection, since: datetime, account_id: str | None = None) -> int:
    query = select(func.count()).where(_IS_VERIFICATION, outbox.c.created_at > _date(since))
    if account_id is not None:
        query = query.where(outbox.c.account_id == account_id)
    return int(connection.execute(query.select_from(outbox)).scalar_one())


def _count_to(connection: Connection, since: datetime, to: str) -> int:
    """Return how many mails went to any spelling of the address, of all accounts."""
    wanted = _bucket(to)
    query = select(outbox.c.recipient).where(
        _IS_VERIFICATION,
        outbox.c.created_at > _date(since),
        outbox.c.domain == wanted.rpartition("@")[2],
    )
    return sum(_bucket(recipient) == wanted for recipient in connection.execute(query).scalars())


def _bucket(text: str) -> str:
    """Return a key that is equal for all spellings of an address that usually reach one mailbox.

    Many mail servers ignore case, quotes, dots and what follows a plus sign.
    """
    try:
        address = parse_address(text)
    except AddressError:
        return text.lower()
    local = address.local.lower().replace('"', "").replace("\\", "").replace(".", "")
    return f"{local.partition('+')[0] or local}@{address.ascii_domain}"


def _date(moment: datetime) -> int:
    return to_milliseconds(moment)
