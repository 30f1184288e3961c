"""The keys of rows that begin with a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, select


@dataclass(frozen=True, slots=True)
class FindKeys:
    """Return the first `limit` values of a text column that begin with a prefix, in order.

    If the prefix is a value itself, it is the only one: an index finds it, while a search by prefix
    reads all rows that `where` selects.
    """

    column: ColumnElement[Any]
    where: ColumnElement[bool]
    prefix: str
    limit: int

    def __call__(self, connection: Connection, /) -> Sequence[str]:
        whole = select(self.column).where(self.where, self.column == self.prefix).limit(1)
        found = connection.execute(whole).scalar()
        if found is not None:
            return [found]
        query = (
            select(self.column)
            .where(self.where, self.column.startswith(self.prefix, autoescape=True))
            .order_by(self.column)
            .limit(self.limit)
        )
        return list(connection.execute(query).scalars())
