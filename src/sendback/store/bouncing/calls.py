"""The record of calls of SendBounce, so that an SDK's retry does not send a second bounce."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select

from sendback.clock import to_milliseconds
from sendback.store.engine.hot import HotStatement
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
_ADD = HotStatement(insert(remembered_calls))


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


def remember_calls(connection: Connection, calls: Mapping[CallKey, str], now: datetime) -> None:
    """Record the MessageId of each call, in the transaction that queues its bounce."""
    rows = [
        {
            "access_key": key.access_key,
            "invocation_id": key.invocation_id,
            "body_hash": key.body_hash,
            "message_id": message_id,
            "created_at": to_milliseconds(now),
        }
        for key, message_id in calls.items()
    ]
    if rows:
        _ADD.run_all(connection, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetCalls(SweepStep):
    """Delete the records of calls before `before`."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        columns = remembered_calls.c
        key = (columns.invocation_id, columns.access_key, columns.body_hash)
        is_old = columns.created_at < to_milliseconds(self.before)
        return delete_some(connection, remembered_calls, key, is_old)
