"""Counters: how often something happened in a minute and in an hour.

Theory of operation. All processes add to the same rows, in statements that add and never set, so
the sums are complete whoever counted. Each event is counted in the row of its minute and in that
of its hour: minutes are kept for some hours, hours for more than a week, so a page never adds up
many rows. Rows are written in the order of their keys, so that two nodes never wait for each other
in a circle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, func, select

from sendback.clock import to_milliseconds
from sendback.store.engine.locking import insert_into
from sendback.store.engine.sweeping import SweepStep, Swept, delete_some
from sendback.store.engine.tables import counters

MINUTE, HOUR = 60, 3600
WIDTHS = (MINUTE, HOUR)
# The account of what concerns none.
NO_ACCOUNT = ""

# Account, minute (Unix time / 60), kind, detail.
CountKey = tuple[str, int, str, str]


@dataclass(frozen=True, slots=True)
class AddCounts:
    """Add numbers to the counters of these widths."""

    counts: Mapping[CountKey, int]
    widths: Sequence[int] = WIDTHS

    def __call__(self, connection: Connection, /) -> None:
        sums: dict[tuple[str, int, int, str, str], int] = {}
        for (account_id, minute, kind, detail), number in self.counts.items():
            for width in self.widths:
                begins_at = minute * MINUTE // width * width * 1000
                key = (account_id, width, begins_at, kind, detail)
                sums[key] = sums.get(key, 0) + number
        if not sums:
            return
        names = ("account_id", "width", "begins_at", "kind", "detail", "number")
        rows = [dict(zip(names, (*key, sums[key]), strict=True)) for key in sorted(sums)]
        statement = insert_into(connection, counters).values(
            {name: bindparam(name) for name in names}
        )
        added = counters.c.number + statement.excluded.number
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(names[:-1]), set_={"number": added}
            ),
            rows,
        )


@dataclass(frozen=True, slots=True)
class Count:
    """How often something happened in a period: `step` is its number since `since`."""

    step: int
    kind: str
    detail: str
    number: int


@dataclass(frozen=True, slots=True)
class ReadCounts:
    """Return the counters of the periods from `since` on, added up in steps of `step` seconds.

    `account_id` None: of all accounts, and of what concerns none. `width` is that of the rows.
    """

    account_id: str | None
    width: int
    since: datetime
    step: int

    def __call__(self, connection: Connection, /) -> Sequence[Count]:
        table = counters.c
        since = to_milliseconds(self.since)
        step = ((table.begins_at - since) // (self.step * 1000)).label("step")
        query = (
            select(step, table.kind, table.detail, func.sum(table.number).label("number"))
            .where(table.width == self.width, table.begins_at >= since)
            .group_by(step, table.kind, table.detail)
        )
        if self.account_id is not None:
            query = query.where(table.account_id == self.account_id)
        return [
            Count(int(begins), kind, detail, int(number))
            for begins, kind, detail, number in connection.execute(query)
        ]


@dataclass(frozen=True, slots=True)
class CountTogether:
    """Add `by` to counters of no account, and return their sums since `since`, in this order."""

    kind: str
    details: Sequence[str]
    now: datetime
    since: datetime
    by: int = 1

    def __call__(self, connection: Connection, /) -> Sequence[int]:
        minute = to_milliseconds(self.now) // 1000 // MINUTE
        counts = {(NO_ACCOUNT, minute, self.kind, name): self.by for name in self.details}
        AddCounts(counts, (MINUTE,))(connection)
        table = counters.c
        query = (
            select(table.detail, func.sum(table.number))
            .where(
                table.account_id == NO_ACCOUNT,
                table.width == MINUTE,
                table.begins_at > to_milliseconds(self.since),
                table.kind == self.kind,
                table.detail.in_(self.details),
            )
            .group_by(table.detail)
        )
        found = {detail: int(number) for detail, number in connection.execute(query)}
        return [found.get(name, 0) for name in self.details]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetCounters(SweepStep):
    """Delete the counters of this width that began before `before`."""

    width: int
    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        is_old = counters.c.begins_at < to_milliseconds(self.before)
        key = tuple(counters.primary_key.columns)
        return delete_some(connection, counters, key, counters.c.width == self.width, is_old)
