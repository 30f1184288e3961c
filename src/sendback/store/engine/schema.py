"""The upgrade of a database to this version's schema, with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from sendback.store.engine.changes import UNWATCHED
from sendback.store.engine.store import schema_version, transact

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade_schema(url: str, version: str = "head") -> tuple[str | None, str | None]:
    """Run the missing migrations up to a version; return the versions before and after.

    All of it is one transaction. Raises `SchemaError`, `StoreUnavailableError`.
    """

    def upgrade(connection: Connection) -> tuple[str | None, str | None]:
        connection.execution_options(**UNWATCHED)  # there may be no generation yet
        before = schema_version(connection)
        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, version)
        return before, schema_version(connection)

    return transact(url, upgrade, writes=True)
