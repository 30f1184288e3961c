"""Calls that are remembered, so that an SDK's own retry does not bounce twice."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select

from sendback.clock import to_milliseconds
from sendback.store.tables import remembered_calls


@dataclass(frozen=True, slots=True)
class CallKey:
    """What all attempts at one call share: `amz-sdk-invocation-id`, and who sent which body."""

    access_key: str
    invocation_id: str
    body_hash: str


_FIND = select(remembered_calls.c.message_id).where(
    remembered_calls.c.access_key == bindparam("access_key"),
    remembered_calls.c.invocation_id == bindparam("invocation_id"),
    remembered_calls.c.body_hash == bindparam("body_hash"),
)


def find_call(connection: Connection, key: CallKey) -> str | None:
    """The MessageId that the call was answered with, or None."""
    return connection.execute(_FIND, _values(key)).scalar()


def remember_call(connection: Connection, key: CallKey, message_id: str, now: datetime) -> None:
    """To be called in the transaction that does what the call asked for."""
    values = {**_values(key), "message_id": message_id, "created_at": to_milliseconds(now)}
    connection.execute(insert(remembered_calls), values)


def forget_calls(connection: Connection, before: datetime) -> int:
    """Forgets what is older; answers how many."""
    where = remembered_calls.c.created_at < to_milliseconds(before)
    return connection.execute(delete(remembered_calls).where(where)).rowcount


def _values(key: CallKey) -> dict[str, str]:
    return {
        "access_key": key.access_key,
        "invocation_id": key.invocation_id,
        "body_hash": key.body_hash,
    }
