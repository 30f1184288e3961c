"""What an error of PostgreSQL means, by its SQLSTATE, and what an operator can do about it.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import re
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from sendback.store.engine.errors import Failure, FailureKind, StoreUnavailableError

# Two transactions were in each other's way: one of them, run again, succeeds or meets the reason.
_CONFLICTS = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available
        "23505",  # unique_violation
        "23503",  # foreign_key_violation
    }
)
# Conflicts that are no decision about the data: after the last attempt the store is unavailable.
_LOCKS = frozenset({"40001", "40P01", "55P03"})
# The session does not have what the driver knows of it: the schema has changed, or a pooler is in
# between. A new connection helps.
_STALE = frozenset({"0A000", "26000", "42P05"})
_UNAVAILABLE = {
    "08": "the connection failed",
    "25006": "it is read-only: the server is a standby, or default_transaction_read_only is set",
    "25P02": "the transaction had failed before",
    "25P03": "the transaction was idle for too long",
    "53": "it is out of resources: see its log",
    "53100": "its disk is full: free some space, and the server recovers by itself",
    "53300": "it has no connection left: a process of Sendback needs five; raise max_connections, "
    "or use a pooler such as PgBouncer",
    "55P03": "another transaction holds its rows",
    "57014": "the statement took too long",
    "57P": "the server is stopping or starting",
    "58": "a read or write of its disk failed: see its log",
    "XX001": "its data is damaged: see its log, and restore a backup",
    "XX002": "an index is damaged: see its log, and run REINDEX",
}
# Errors of a connection attempt have no SQLSTATE, only a text (of libpq, or of the server).
_ADVICE = {
    r"password authentication failed|no password supplied": "set the user in its URL, and the "
    "password there, in PGPASSWORD or in ~/.pgpass",
    r"role \".*\" does not exist": "name a user of the database in its URL, or in PGUSER",
    r"database \".*\" does not exist": "create it with `createdb`, or name another in the URL",
    r"no pg_hba.conf entry": "permit this host and user in the server's pg_hba.conf, perhaps with "
    "sslmode=require in the URL",
    r"resolve host|translate host name": "check the name of the host in the URL",
    r"Connection refused|No such file": "check host and port in the URL, and whether it runs",
    r"timeout expired|timed out": "check host and port in the URL, and firewalls in between",
    r"certificate|SSL|sslmode": "check sslmode and sslrootcert in the URL",
    r"too many (clients|connections)|connection slots|no more connections": _UNAVAILABLE["53300"],
    r"starting up|shutting down|recovery mode": "it is starting or stopping",
    r"permission denied for database": "the user needs it: GRANT CONNECT ON DATABASE",
}
_START_UP_ADVICE = {
    "42501": "the user needs permissions: make it the owner of the database, or "
    "GRANT USAGE, CREATE ON SCHEMA public TO it",
    "3F000": "create the schema that search_path names",
    "42P01": "the tables are not in the schema that search_path names",
}


def failure_of(error: BaseException, url: URL) -> Failure | None:
    """Return what the error means for the transaction, or None: it is the unit's own.

    `error` is what SQLAlchemy raised, or `StoreUnavailableError` of a new connection.
    """
    if isinstance(error, StoreUnavailableError):
        return Failure(FailureKind.UNAVAILABLE, str(error))
    kind = _kind(error) if isinstance(error, DBAPIError) else None
    if kind is None or not isinstance(error, DBAPIError):
        return None
    if kind is FailureKind.CONFLICT and _state(error) not in _LOCKS:
        return Failure(kind, None)
    return Failure(kind, _text(error, url, _advice(_state(error))))


def _kind(error: DBAPIError) -> FailureKind | None:
    state = _state(error)
    if state in _CONFLICTS:
        return FailureKind.CONFLICT
    is_stale = state in _STALE and (state != "0A000" or "cached plan" in str(error.orig))
    if error.connection_invalidated or is_stale:
        return FailureKind.LOST
    is_lost = state is None and isinstance(error, OperationalError | InterfaceError)
    return FailureKind.UNAVAILABLE if is_lost or _advice(state) else None


def described(error: DBAPIError, url: URL) -> str:
    """Return the text of an error for which only the operator can do something, with advice."""
    failure = failure_of(error, url)
    if failure is not None and failure.reason is not None:
        return failure.reason
    return _text(error, url, _START_UP_ADVICE.get(_state(error) or ""))


def _state(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _advice(state: str | None) -> str | None:
    for length in (5, 3, 2):
        found = _UNAVAILABLE.get((state or "")[:length])
        if found is not None:
            return found
    return None


def _text(error: DBAPIError, url: URL, advice: str | None = None) -> str:
    """Return one line: which database, what it reported, what to do."""
    words = " ".join(str(error.orig).split()).rstrip(".")
    if advice is None:
        advice = next(
            (advice for pattern, advice in _ADVICE.items() if re.search(pattern, words)), None
        )
    return f"the database {shown(url)}: {words}{f': {advice}' if advice else ''}"


def shown(url: URL) -> str:
    """Return the name of the database, and its host if it has one."""
    host: Any = url.host
    return f"{url.database}{f' at {host}' if host else ''}"
