"""What the installation knows about itself."""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from sendback.store.tables import installation


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
