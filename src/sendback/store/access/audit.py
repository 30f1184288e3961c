"""Audit lines: who changed what in the console."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.store.engine.sweeping import SweepStep, Swept, delete_some
from sendback.store.engine.tables import audit_lines


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A change. `line_id` begins with its time; `client` is the IP address of the browser."""

    line_id: str
    account_id: str
    user_name: str
    client: str
    path: str
    text: str
    date: datetime


@dataclass(frozen=True, slots=True)
class AddAuditLine:
    """Add a line."""

    line: AuditLine

    def __call__(self, connection: Connection, /) -> None:
        line = self.line
        values = {
            "line_id": line.line_id,
            "account_id": line.account_id,
            "user_name": line.user_name,
            "client": line.client,
            "path": line.path,
            "text": line.text,
            "created_at": to_milliseconds(line.date),
        }
        connection.execute(insert(audit_lines), values)


@dataclass(frozen=True, slots=True)
class ListAuditLines:
    """Return the lines of an account, or of all (None), the newest first, older than `before`."""

    account_id: str | None
    before: str  # a line's ID; empty: from the newest on
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[AuditLine]:
        table = audit_lines.c
        query = select(audit_lines).order_by(table.line_id.desc()).limit(self.limit)
        if self.account_id is not None:
            query = query.where(table.account_id == self.account_id)
        if self.before:
            query = query.where(table.line_id < self.before)
        return [
            AuditLine(
                row.line_id,
                row.account_id,
                row.user_name,
                row.client,
                row.path,
                row.text,
                from_milliseconds(row.created_at),
            )
            for row in connection.execute(query)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetAuditLines(SweepStep):
    """Delete lines of changes that were made before `before`."""

    before: datetime

    def __call__(self, connection: Connection, /) -> Swept:
        is_old = audit_lines.c.created_at < to_milliseconds(self.before)
        return delete_some(connection, audit_lines, (audit_lines.c.line_id,), is_old)
