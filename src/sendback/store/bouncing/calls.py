"""The record of calls of SendBounce, so that an SDK's retry does not send a second bounce."""

from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select

from sendback.clock import to_milliseconds
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.locking import add_missing, has_row_locks
from sendback.store.engine.sweeping import SweepStep, Swept, delete_some
from sendback.store.engine.tables import remembered_calls


@dataclass(frozen=True, slots=True)
class CallKey:
    """What all attempts at one call share: `amz-sdk-invocation-id`, access key and body."""

    access_key: str
    invocation_id: str
    body_hash: str


_FIND = HotStatement(
    select(remembered_calls).where(
        remembered_calls.c.invocation_id.in_(bindparam("invocation_ids", expanding=True))
    )
)
_ADD_ON_SQLITE = HotStatement(insert(remembered_calls).prefix_with("OR IGNORE"))


def find_calls(connection: Connection, keys: Collection[CallKey]) -> dict[CallKey, str]:
    """Return the MessageId of each of the calls that is recorded."""
    if not keys:
        return {}
    values = {"invocation_ids": [key.invocation_id for key in keys]}
    found = {
        CallKey(row.access_key, row.invocation_id, row.body_hash): row.message_id
        for row in _FIND.rows(connection, values)
    }
    return {key: found[key] for key in keys if key in found}


def claim_calls(
    connection: Connection, calls: Mapping[CallKey, str], now: datetime
) -> dict[CallKey, str]:
    """Record the MessageId of each call that is new; return that of each, the first one's.

    In the transaction that queues the bounces. A call that another transaction is recording is
    waited for. In order of the keys, so that two nodes with the same calls do not wait for each
    other.
    """
    rows = [
        {
            "access_key": key.access_key,
            "invocation_id": key.invocation_id,
            "body_hash": key.body_hash,
            "message_id": calls[key],
            "created_at": to_milliseconds(now),
        }
        for key in sorted(calls, key=astuple)
    ]
    if rows:
        if has_row_locks(connection):
            add_missing(connection, remembered_calls, rows, remembered_calls.c.message_id)
        else:
            _ADD_ON_SQLITE.run_all(connection, rows)
    return find_calls(connection, calls.keys())


def forget_calls(connection: Connection, keys: Collection[CallKey]) -> None:
    """Delete the records of calls that were claimed in this transaction, and then refused."""
    columns = remembered_calls.c
    for key in keys:
        where = (
            columns.invocation_id == key.invocation_id,
            columns.access_key == key.access_key,
            columns.body_hash == key.body_hash,
        )
        connection.execute(delete(remembered_calls).where(*where))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetCalls(SweepStep):
    """Delete the records of calls before `before`."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        columns = remembered_calls.c
        key = (columns.invocation_id, columns.access_key, columns.body_hash)
        is_old = columns.created_at < to_milliseconds(self.before)
        return delete_some(connection, remembered_calls, key, is_old)
