"""The keys of rows that begin with a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, select


@dataclass(frozen=True, slots=True)
class FindKeys:
    """Return the first `limit` values of a text column that begin with a prefix, in order.

    `where` selects the rows.
    """

    column: ColumnElement[Any]
    where: ColumnElement[bool]
    prefix: str
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[str]:
        query = (
            select(self.column)
            .where(self.where, self.column.startswith(self.prefix, autoescape=True))
            .order_by(self.column)
            .limit(self.limit)
        )
        return list(connection.execute(query).scalars())
