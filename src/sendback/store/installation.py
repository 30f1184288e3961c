"""What the installation knows about itself."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from sendback.clock import to_milliseconds
from sendback.store.tables import installation

_LAST_CHECK = "checked_at"


@dataclass(frozen=True, slots=True)
class Remember:
    """Keeps a value under its name unless there is one; answers the one that is kept."""

    name: str
    value: str

    def __call__(self, connection: Connection, /) -> str:
        query = select(installation.c.value).where(installation.c.name == self.name)
        found = connection.execute(query).scalar()
        if found is not None:
            return str(found)
        connection.execute(insert(installation), {"name": self.name, "value": self.value})
        return self.value


@dataclass(frozen=True, slots=True)
class CheckRead:
    """Shows that the store can be read."""

    def __call__(self, connection: Connection, /) -> None:
        query = select(installation.c.value).where(installation.c.name == _LAST_CHECK)
        connection.execute(query).scalar()


@dataclass(frozen=True, slots=True)
class CheckWrite:
    """Shows that the store can be written, by one row that is always the same one."""

    now: datetime

    def __call__(self, connection: Connection, /) -> None:
        value = str(to_milliseconds(self.now))
        statement = update(installation).where(installation.c.name == _LAST_CHECK)
        if not connection.execute(statement.values(value=value)).rowcount:
            connection.execute(insert(installation), {"name": _LAST_CHECK, "value": value})
