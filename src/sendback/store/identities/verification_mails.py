"""How many verification mails were queued a short while ago: what their limits are held against.

A verification mail is a row of the outbox that belongs to no received message. The outbox keeps
its rows for the setting `history`, whatever becomes of the mail.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, text

from sendback.clock import to_milliseconds
from sendback.mail.address import AddressError, parse_address
from sendback.store.engine.errors import RefusedError
from sendback.store.engine.tables import accounts, outbox

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
# Written out: with a parameter in its place SQLite would not use the partial index.
_IS_VERIFICATION = text("original_message_id = ''")


@dataclass(frozen=True, slots=True)
class VerificationLimits:
    """How many mails at most: of an account in an hour, to an address in a day, in all in an hour.

    0: without limit.
    """

    per_account: int = 0
    per_address: int = 0
    in_all: int = 0


UNLIMITED = VerificationLimits()


class TooManyVerificationMailsError(RefusedError):
    """A limit is reached; `str` says which."""


def check_verification_limits(
    connection: Connection, limits: VerificationLimits, account_id: str, to: str, now: datetime
) -> None:
    """Raise `TooManyVerificationMailsError` when one more mail would pass a limit.

    To be called in the transaction that queues the mail to `to`, before it is queued.
    """
    # PostgreSQL: two transactions of one account come after each other. SQLite has one writer.
    own = select(accounts.c.account_id).where(accounts.c.account_id == account_id)
    connection.execute(own.with_for_update()).first()
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
    """Of all accounts, and however the address was spelt."""
    wanted = _bucket(to)
    query = select(outbox.c.recipient).where(
        _IS_VERIFICATION,
        outbox.c.created_at > _date(since),
        outbox.c.domain == wanted.rpartition("@")[2],
    )
    return sum(_bucket(recipient) == wanted for recipient in connection.execute(query).scalars())


def _bucket(text: str) -> str:
    """Return what the spellings share that usually reach one person.

    Case, quotes, dots and what follows a plus mean nothing to many mail servers.
    """
    try:
        address = parse_address(text)
    except AddressError:
        return text.lower()
    local = address.local.lower().replace('"', "").replace("\\", "").replace(".", "")
    return f"{local.partition('+')[0] or local}@{address.ascii_domain}"


def _date(moment: datetime) -> int:
    return to_milliseconds(moment)
