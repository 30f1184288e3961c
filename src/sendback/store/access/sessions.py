"""Sessions of users who have signed in to the console.

A session is only as good as what it began with: each look-up checks that the key is there and
enabled, or that the user still has a password. So nothing has to be cleaned up elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.access.passwords import has_caller
from sendback.store.access.users import NamedPolicy, find_user_policies
from sendback.store.engine.locking import lock_account
from sendback.store.engine.sweeping import SweepStep, Swept, delete_some
from sendback.store.engine.tables import access_keys, console_passwords, console_sessions


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session. `session_hash` is the hash of the cookie; `access_key` is empty for a password."""

    session_hash: str
    account_id: str
    user_name: str
    access_key: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AddSession:
    """Add a session, unless what it begins with was deleted meanwhile; return whether it was."""

    session: StoredSession
    password_hash: str  # that was verified; empty for an access key

    def __call__(self, connection: Connection, /) -> bool:
        session = self.session
        lock_account(connection, session.account_id)
        if not _is_backed(connection, session, session.created_at, self.password_hash):
            return False
        values = {
            "session_hash": session.session_hash,
            "account_id": session.account_id,
            "user_name": session.user_name,
            "access_key": session.access_key,
            "created_at": to_milliseconds(session.created_at),
            "used_at": to_milliseconds(session.used_at),
            "expires_at": to_milliseconds(session.expires_at),
        }
        connection.execute(insert(console_sessions), values)
        return True


@dataclass(frozen=True, slots=True)
class FindSession:
    """Return a session that has not ended, with the policies of its user; None: there is none.

    It has ended when it was not used since `used_after`, or is over at `now`.
    """

    session_hash: str
    now: datetime
    used_after: datetime

    def __call__(
        self, connection: Connection, /
    ) -> tuple[StoredSession, Sequence[NamedPolicy]] | None:
        where = console_sessions.c.session_hash == self.session_hash
        row = connection.execute(select(console_sessions).where(where)).first()
        if row is None:
            return None
        session = _from_row(row)
        if session.expires_at <= self.now or session.used_at <= self.used_after:
            return None
        if not _is_backed(connection, session, self.now):
            return None
        return session, find_user_policies(connection, session.account_id, session.user_name)


@dataclass(frozen=True, slots=True)
class TouchSession:
    """Record that a session was used."""

    session_hash: str
    now: datetime

    def __call__(self, connection: Connection, /) -> None:
        where = console_sessions.c.session_hash == self.session_hash
        values = {"used_at": to_milliseconds(self.now)}
        connection.execute(update(console_sessions).where(where).values(values))


@dataclass(frozen=True, slots=True)
class EndSession:
    """Delete a session."""

    session_hash: str

    def __call__(self, connection: Connection, /) -> None:
        where = console_sessions.c.session_hash == self.session_hash
        connection.execute(delete(console_sessions).where(where))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSessions(SweepStep):
    """Delete sessions that ended before `before`."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        has_ended = console_sessions.c.expires_at < to_milliseconds(self.before)
        key = (console_sessions.c.session_hash,)
        return delete_some(connection, console_sessions, key, has_ended)


def _is_backed(
    connection: Connection, session: StoredSession, now: datetime, password_hash: str = ""
) -> bool:
    """Return whether the key or the password that a session begins with is still valid."""
    if session.access_key:
        key = access_keys.c
        query = select(key.disabled_at, key.expires_at).where(
            key.access_key == session.access_key,
            key.account_id == session.account_id,
            key.user_name == session.user_name,
        )
        row = connection.execute(query).first()
        if row is None or row.disabled_at is not None:
            return False
        return row.expires_at is None or from_milliseconds(row.expires_at) > now
    passwords = console_passwords.c
    found = connection.execute(
        select(passwords.hash).where(
            passwords.account_id == session.account_id, passwords.user_name == session.user_name
        )
    ).scalar()
    if found is None or (password_hash and found != password_hash):
        return False
    return has_caller(connection, session.account_id, session.user_name)


def _from_row(row: Any) -> StoredSession:
    return StoredSession(
        row.session_hash,
        row.account_id,
        row.user_name,
        row.access_key,
        from_milliseconds(row.created_at),
        from_milliseconds(row.used_at),
        from_milliseconds(row.expires_at),
    )
