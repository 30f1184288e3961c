"""Brings a database to this version's schema, with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from sendback.store.dialects import open_engine
from sendback.store.store import schema_version

_MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade_schema(url: str, version: str = "head") -> tuple[str | None, str | None]:
    """Runs what migrations are missing up to a version; answers the version before and after."""
    engine = open_engine(url, writes=True)
    try:
        with engine.begin() as connection:
            before = schema_version(connection)
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, version)
            return before, schema_version(connection)
    finally:
        engine.dispose()
