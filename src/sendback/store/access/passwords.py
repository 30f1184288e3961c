"""Console passwords of users: their hashes."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select

from sendback.aws.arn import ROOT_USER
from sendback.clock import to_milliseconds
from sendback.store.access.accounts import has_account
from sendback.store.access.users import has_user
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.locking import lock_account, put_row
from sendback.store.engine.tables import console_passwords, console_sessions


@dataclass(frozen=True, slots=True)
class PutPassword:
    """Set the hash of the user's password, and end its sessions that began with a password.

    Raises `NotFoundError` when there is no such user.
    """

    account_id: str
    user_name: str
    hash: str
    now: datetime

    def __call__(self, connection: Connection, /) -> None:
        lock_account(connection, self.account_id)  # the user is not deleted meanwhile
        if not has_caller(connection, self.account_id, self.user_name):
            raise NotFoundError("user", self.user_name)
        key = {"account_id": self.account_id, "user_name": self.user_name}
        values = {"hash": self.hash, "changed_at": to_milliseconds(self.now)}
        put_row(connection, console_passwords, key, values)
        _end_sessions(connection, self.account_id, self.user_name)


@dataclass(frozen=True, slots=True)
class DeletePassword:
    """Delete the user's password, and end its sessions. Return whether there was a password."""

    account_id: str
    user_name: str

    def __call__(self, connection: Connection, /) -> bool:
        lock_account(connection, self.account_id)
        _end_sessions(connection, self.account_id, self.user_name)
        where = (
            console_passwords.c.account_id == self.account_id,
            console_passwords.c.user_name == self.user_name,
        )
        return connection.execute(delete(console_passwords).where(*where)).rowcount > 0


@dataclass(frozen=True, slots=True)
class FindPassword:
    """Return the hash of the user's password, or None."""

    account_id: str
    user_name: str

    def __call__(self, connection: Connection, /) -> str | None:
        query = select(console_passwords.c.hash).where(
            console_passwords.c.account_id == self.account_id,
            console_passwords.c.user_name == self.user_name,
        )
        found: str | None = connection.execute(query).scalar()
        return found


def has_caller(connection: Connection, account_id: str, user_name: str) -> bool:
    """Return whether the account has this user; root is every account's."""
    if user_name == ROOT_USER:
        return has_account(connection, account_id)
    return has_user(connection, account_id, user_name)


def _end_sessions(connection: Connection, account_id: str, user_name: str) -> None:
    connection.execute(
        delete(console_sessions).where(
            console_sessions.c.account_id == account_id,
            console_sessions.c.user_name == user_name,
            console_sessions.c.access_key == "",
        )
    )
