"""The next version of Sendback: a copy of this one with more migrations, run by PYTHONPATH."""

import re
import shutil
from pathlib import Path

import sendback
from sendback.store.engine.schema import MIGRATIONS, Kind, all_migrations

_HEAD = """\
import time

import sqlalchemy as sa
from alembic import op
from sendback.store.engine.migrating import build_index, in_steps

"""


def add_migration(
    folder: Path, revision: str, body: str, *, kind: str = "expand", more: str = ""
) -> None:
    """Add a file to a folder of migrations; `body` is what `upgrade` does."""
    before = all_migrations(folder)[-1].revision
    indented = body.replace("\n", "\n    ")
    (folder / "versions" / f"{revision}_example.py").write_text(
        f'"""An example."""\n\n{_HEAD}revision = {revision!r}\ndown_revision = {before!r}\n'
        f"kind = {kind!r}\n{more}\n\ndef upgrade():\n    {indented}\n"
    )


class NextVersion:
    """The copy in a folder. `add` migrations in order; a table `added` is part of its schema."""

    def __init__(self, folder: Path) -> None:
        self._package = folder / "sendback"
        source = Path(sendback.__file__).parent
        shutil.copytree(source, self._package, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {"PYTHONPATH": str(folder)}

    def add(self, revision: str, body: str, *, kind: str = "expand", more: str = "") -> None:
        """Add a migration, and raise the versions that the code knows."""
        inside = self._package / MIGRATIONS.relative_to(Path(sendback.__file__).parent)
        add_migration(inside, revision, body, kind=kind, more=more)
        self._set("SCHEMA_VERSION", revision)
        if kind == Kind.EXPAND:
            self._set("REQUIRED_SCHEMA", revision)

    def needs_a_table(self) -> None:
        """Let the code need the table `added`, which a migration has to create."""
        with self._tables.open("a") as file:
            file.write('\n\nadded = Table("added", metadata, Column("a", Integer))\n')

    @property
    def _tables(self) -> Path:
        return self._package / "store" / "engine" / "tables.py"

    def _set(self, name: str, value: str) -> None:
        line = re.compile(rf'^{name} = "\d+"$', re.MULTILINE)
        text, count = line.subn(f'{name} = "{value}"', self._tables.read_text())
        if count != 1:
            raise RuntimeError(f"{self._tables} has no {name}")
        self._tables.write_text(text)
