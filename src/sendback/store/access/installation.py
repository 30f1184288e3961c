"""What the installation knows about itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from sendback.clock import to_milliseconds
from sendback.store.engine.tables import installation

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
class TakeTurn:
    """Take something that one process does at a time, until then; return whether it was free.

    The owner may take it again, which prolongs it. A turn that lasts longer than `longest` from
    now was taken by a clock that was set back since, and is free.
    """

    name: str
    owner: str
    now: datetime
    until: datetime
    longest: timedelta

    def __call__(self, connection: Connection, /) -> bool:
        is_named = installation.c.name == self.name
        query = select(installation.c.value).where(is_named).with_for_update()
        found = connection.execute(query).scalar()
        value = f"{to_milliseconds(self.until)} {self.owner}"
        if found is None:
            connection.execute(insert(installation), {"name": self.name, "value": value})
            return True
        until, _, owner = str(found).partition(" ")
        latest = to_milliseconds(self.now + self.longest)
        if owner != self.owner and to_milliseconds(self.now) < int(until) <= latest:
            return False
        connection.execute(update(installation).where(is_named).values(value=value))
        return True


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
