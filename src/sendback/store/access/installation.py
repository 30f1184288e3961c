"""Values of the whole installation: its secret's fingerprint, locks, and the readiness checks."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from sendback.clock import to_milliseconds
from sendback.store.engine.locking import add_missing, put_row
from sendback.store.engine.tables import installation

_LAST_CHECK = "checked_at"


@dataclass(frozen=True, slots=True)
class GetOrSet:
    """Return the stored value of that name; store this one first if there is none."""

    name: str
    value: str

    def __call__(self, connection: Connection, /) -> str:
        query = select(installation.c.value).where(installation.c.name == self.name)
        found = connection.execute(query).scalar()
        if found is None:
            row = {"name": self.name, "value": self.value}
            add_missing(connection, installation, [row], installation.c.name)
            found = connection.execute(query).scalar_one()
        return str(found)


@dataclass(frozen=True, slots=True)
class FindValue:
    """Return the stored value of that name, or None."""

    name: str

    def __call__(self, connection: Connection, /) -> str | None:
        query = select(installation.c.value).where(installation.c.name == self.name)
        found: str | None = connection.execute(query).scalar()
        return found


@dataclass(frozen=True, slots=True)
class AcquireLock:
    """Acquire the lock of that name until `until`; return False if another owner holds it.

    Its owner may acquire it again, which sets a new end. A lock that ends more than `longest` after
    `now` is free: the clock was set back since it was acquired.
    """

    name: str
    owner: str
    now: datetime
    until: datetime
    longest: timedelta

    def __call__(self, connection: Connection, /) -> bool:
        is_named = installation.c.name == self.name
        value = f"{to_milliseconds(self.until)} {self.owner}"
        row = {"name": self.name, "value": value}
        if add_missing(connection, installation, [row], installation.c.name):
            return True
        query = select(installation.c.value).where(is_named).with_for_update()
        until, _, owner = str(connection.execute(query).scalar_one()).partition(" ")
        latest = to_milliseconds(self.now + self.longest)
        if owner != self.owner and to_milliseconds(self.now) < int(until) <= latest:
            return False
        connection.execute(update(installation).where(is_named).values(value=value))
        return True


@dataclass(frozen=True, slots=True)
class CheckRead:
    """Read a row, as a check that the store can be read."""

    def __call__(self, connection: Connection, /) -> None:
        FindValue(_LAST_CHECK)(connection)


@dataclass(frozen=True, slots=True)
class CheckWrite:
    """Write a row, always the same one, as a check that the store can be written."""

    now: datetime

    def __call__(self, connection: Connection, /) -> None:
        value = {"value": str(to_milliseconds(self.now))}
        put_row(connection, installation, {"name": _LAST_CHECK}, value)
