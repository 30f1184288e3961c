"""The upgrade of a database to this version's schema: runs migrations with Alembic's operations.

Theory of operation. Each file in `migrations/versions` is a migration. Those up to 0008 are run
while no server runs. From 0009 on a file has a `kind`: "expand" or "contract" (see `versions.py`);
one that contracts also has `oldest_code`, the oldest schema whose code may use the database after
it. Expanding migrations are run while nodes of the version before serve; contracting ones only on
request, and in their order: a contracting migration comes before the expanding ones of the release
after it.

One process at a time runs migrations, under a lock. Each is a transaction of its own, which also
records its number, so the database is consistent whenever the process ends. A migration that takes
long commits in between (`migrating.py`) and can be repeated. On PostgreSQL a statement that waits
for a lock on a table makes all that come after it wait, so it stops waiting after a second and is
repeated later.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from time import monotonic, sleep

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from sendback.store.engine.dialects import (
    described,
    is_lock_timeout,
    patient_engine,
    schema_lock,
    tune,
)
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.migrating import REPORT
from sendback.store.engine.nodes import GONE_AFTER, serving_nodes
from sendback.store.engine.tables import metadata
from sendback.store.engine.versions import (
    LAST_WITH_STOPPED_SERVERS,
    Schema,
    SchemaError,
    create_version_table,
    newer_schema_error,
    read_schema,
    set_schema,
)

MIGRATIONS = Path(__file__).parent / "migrations"
# How long a migration is repeated that gets no lock: longer than any transaction of a server.
_LOCK_SECONDS = 600.0
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 5.0

Report = Callable[[str], None]


class Kind(StrEnum):
    """What a migration does to code of the schema before it."""

    STOP = "stop"  # no server may run
    EXPAND = "expand"
    CONTRACT = "contract"


@dataclass(frozen=True, slots=True)
class Migration:
    """A file in `versions`. `oldest_code`: only of one that contracts."""

    revision: str
    kind: Kind
    title: str
    oldest_code: str | None
    run: Callable[[], None]


def all_migrations(folder: Path = MIGRATIONS) -> tuple[Migration, ...]:
    """Return all migrations, the oldest first. Raises `SchemaError` for one without a kind."""
    scripts = list(ScriptDirectory(str(folder)).walk_revisions())
    return tuple(_migration(script.module) for script in reversed(scripts))


def _migration(module: object) -> Migration:
    revision = str(getattr(module, "revision"))  # noqa: B009 - a module has any attribute
    is_old = revision <= LAST_WITH_STOPPED_SERVERS
    kind = Kind.STOP if is_old else getattr(module, "kind", None)
    oldest = getattr(module, "oldest_code", None)
    if kind not in set(Kind) or (kind == Kind.CONTRACT) != (oldest is not None):
        raise SchemaError(
            f"the migration {revision} needs `kind`, which is 'expand' or 'contract'; one that "
            "contracts needs `oldest_code` too"
        )
    title = (module.__doc__ or "").split("\n")[0]
    return Migration(revision, Kind(kind), title, oldest, getattr(module, "upgrade"))  # noqa: B009


def pending(schema: Schema | None, folder: Path = MIGRATIONS) -> tuple[Migration, ...]:
    """Return the migrations that a database with this schema lacks. None: it is empty."""
    return tuple(m for m in all_migrations(folder) if schema is None or m.revision > schema.version)


def upgrade_schema(
    url: str,
    version: str | None = None,
    *,
    contract: bool = False,
    report: Report = lambda _: None,
    folder: Path = MIGRATIONS,
) -> tuple[str | None, str | None]:
    """Run the missing migrations up to a version; return the versions before and after.

    Contracting ones are run only with `contract`, or if the database was empty. `report` is called
    with a line of progress. Raises `SchemaError`, `StoreUnavailableError`.
    """
    return _Upgrade(url, version, report, folder, contract=contract).run()


class _Upgrade:
    def __init__(
        self, url: str, version: str | None, report: Report, folder: Path, *, contract: bool
    ) -> None:
        self._url = url
        self._version = version
        self._report = report
        self._folder = folder
        self._contract = contract

    def run(self) -> tuple[str | None, str | None]:
        with patient_engine(self._url, writes=True) as engine:
            try:
                with schema_lock(self._url, self._waiting):
                    return self._run(engine)
            except DBAPIError as error:
                raise StoreUnavailableError(described(error, engine)) from error

    def _waiting(self) -> None:
        self._report("another process upgrades this database; waiting for it to end")

    def _run(self, engine: Engine) -> tuple[str | None, str | None]:
        before = _schema_of(engine)
        self._check(engine, before)
        self._contract = self._contract or before is None
        after = before
        while steps := self._next(after):
            self._repeat_while_locked(engine, steps)
            after = _schema_of(engine)
        return _version(before), _version(after)

    def _check(self, engine: Engine, schema: Schema | None) -> None:
        known = all_migrations(self._folder)[-1].revision
        if schema is not None and schema.version > known and not schema.is_usable:
            raise newer_schema_error(str(engine.url.database), schema)

    def _next(self, schema: Schema | None) -> Sequence[Migration]:
        """Return the migrations of the next transaction."""
        missing = [
            m
            for m in pending(schema, self._folder)
            if self._version is None or m.revision <= self._version
        ]
        if not missing:
            return ()
        first = missing[0]
        if first.kind == Kind.STOP:
            return [m for m in missing if m.kind == Kind.STOP]
        if first.kind == Kind.CONTRACT and not self._contract:
            self._check_order(missing)
            return ()
        return missing[:1]

    def _check_order(self, missing: Sequence[Migration]) -> None:
        """Raise `SchemaError` when a contracting migration is before an expanding one."""
        if any(m.kind == Kind.EXPAND for m in missing):
            first = missing[0]
            raise SchemaError(
                f"migration {first.revision} of the version before has not been run: once no node "
                f"of a schema before {first.oldest_code} is left, run `sendback db upgrade "
                "--contract` with that version, then repeat this command"
            )

    def _repeat_while_locked(self, engine: Engine, steps: Sequence[Migration]) -> None:
        deadline = monotonic() + _LOCK_SECONDS
        pause = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                return self._run_together(engine, steps)
            except DBAPIError as error:
                if not is_lock_timeout(error, engine.url) or monotonic() > deadline:
                    raise
            self._report("another transaction has a lock that this needs; it will be tried again")
            sleep(pause * (0.5 + random.random()))  # noqa: S311 - jitter
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _run_together(self, engine: Engine, steps: Sequence[Migration]) -> None:
        options = {"target_metadata": metadata, REPORT: self._report}
        with engine.connect() as connection:
            schema = read_schema(connection)
            if _was_run(steps[0], schema):
                return  # on SQLite another process was faster
            context = MigrationContext.configure(connection, opts=options)
            for step in steps:
                _check_nodes(connection, step)
                started = monotonic()
                self._report(f"{step.revision} ({step.kind}) {step.title}")
                with Operations.context(context):
                    step.run()
                if schema is not None and _was_run(step, read_schema(connection)):
                    return  # by another process, while this one committed in between (SQLite)
                if schema is None:
                    create_version_table(connection)
                schema = _after(step, schema)
                records_oldest = step.revision >= LAST_WITH_STOPPED_SERVERS
                set_schema(connection, schema.version, schema.oldest if records_oldest else None)
                self._report(f"{step.revision} took {monotonic() - started:.1f} s")
            tune(connection)
            connection.commit()


def _check_nodes(connection: Connection, step: Migration) -> None:
    """Raise `SchemaError` if a node serves whose code needs what this migration removes."""
    if step.kind != Kind.CONTRACT or step.oldest_code is None:
        return
    older = [node for node in serving_nodes(connection) if node.schema < step.oldest_code]
    if older:
        names = ", ".join(f"{node.name} ({node.version})" for node in older)
        raise SchemaError(
            f"migration {step.revision} removes what older servers use, and these serve: {names}: "
            f"stop them, then run this again. One that was killed counts for "
            f"{GONE_AFTER.total_seconds():.0f} s"
        )


def _was_run(step: Migration, schema: Schema | None) -> bool:
    return schema is not None and schema.version >= step.revision


def _after(step: Migration, schema: Schema | None) -> Schema:
    """Return the schema after a migration."""
    if step.kind == Kind.STOP or schema is None:
        return Schema(step.revision, step.revision)
    return Schema(step.revision, max(schema.oldest, step.oldest_code or schema.oldest))


def _version(schema: Schema | None) -> str | None:
    return None if schema is None else schema.version


def _schema_of(engine: Engine) -> Schema | None:
    with engine.connect() as connection:
        return read_schema(connection)
