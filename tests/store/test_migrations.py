"""Migrations from 0009 on: each has a kind, and one that expands leaves older code alone.

The rules are checked on real databases: what a migration did is compared with what was there. Each
rule has an example that breaks it.
"""

import re
import shutil
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event, inspect

from sendback.store.engine.dialects import open_engine
from sendback.store.engine.schema import (
    MIGRATIONS,
    Kind,
    all_migrations,
    pending,
    upgrade_schema,
)
from sendback.store.engine.store import prepare_schema, transact
from sendback.store.engine.tables import OLDEST_SCHEMA, REQUIRED_SCHEMA, SCHEMA_VERSION
from sendback.store.engine.versions import (
    LAST_WITH_STOPPED_SERVERS,
    Schema,
    SchemaError,
    read_schema,
    set_schema,
)
from tests.conftest import need
from tests.partners.next_version import add_migration
from tests.partners.postgresql import binaries, shared_server

pytestmark = pytest.mark.sqlite("it runs on both databases in either run")

CREATE_INDEX = re.compile(
    r'CREATE (?:UNIQUE )?INDEX (CONCURRENTLY )?(?:IF NOT EXISTS )?"?(\w+)"? ON "?(\w+)',
    re.IGNORECASE,
)
CHANGE_ROWS = re.compile(r'(?:UPDATE|DELETE FROM) "?(\w+)', re.IGNORECASE)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'x'}"
        return
    need("PostgreSQL", available=binaries() is not None)
    url = shared_server().create_empty()
    yield url
    shared_server().drop(url)


@pytest.fixture
def folder(tmp_path):
    """A copy of the migrations, to which a test adds."""
    return shutil.copytree(MIGRATIONS, tmp_path / "migrations")


# --- what a migration did ----------------------------------------------------------------------


def shape(url):
    """Of each table: its columns, and what refuses rows."""
    engine = open_engine(url, writes=False)
    with engine.connect() as connection:
        found = inspect(connection)
        shapes = {table: table_shape(found, table) for table in found.get_table_names()}
    engine.dispose()
    return shapes


def table_shape(found, table):
    columns = {
        column["name"]: (str(column["type"]), column["nullable"], column["default"])
        for column in found.get_columns(table)
    }
    refusing = {
        *(f"unique {sorted(c['column_names'])}" for c in found.get_unique_constraints(table)),
        *(f"unique {i['column_names']}" for i in found.get_indexes(table) if i["unique"]),
        *(f"foreign key {c['constrained_columns']}" for c in found.get_foreign_keys(table)),
        *(f"check {c['sqltext']}" for c in found.get_check_constraints(table)),
        f"primary key {found.get_pk_constraint(table)['constrained_columns']}",
    }
    return columns, refusing


@contextmanager
def recorded():
    """The statements that are run, with COMMIT for each commit."""
    statements = []

    def executed(_connection, _cursor, statement, *_):
        statements.append(statement)

    def committed(_connection):
        statements.append("COMMIT")

    event.listen(Engine, "before_cursor_execute", executed)
    event.listen(Engine, "commit", committed)
    yield statements
    event.remove(Engine, "before_cursor_execute", executed)
    event.remove(Engine, "commit", committed)


def problems_of(url, migration, folder):
    """Run the migration; what older code would notice of it."""
    before = shape(url)
    with recorded() as statements:
        upgrade_schema(url, migration.revision, contract=True, folder=folder)
    if migration.kind != Kind.EXPAND:
        return []
    after = shape(url)
    found = [*changed(before, after), *slow(before, statements)]
    if statements.count("COMMIT") > 1:  # so it may end in the middle, and is repeated
        transact(url, lambda c: set_schema(c, previous(migration, folder)), writes=True)
        upgrade_schema(url, migration.revision, folder=folder)
        assert shape(url) == after
    return found


def previous(migration, folder):
    return max(m.revision for m in all_migrations(folder) if m.revision < migration.revision)


def changed(before, after):
    for table, (columns, refusing) in before.items():
        if table not in after:
            yield f"{table} is gone"
            continue
        new_columns, new_refusing = after[table]
        for name, column in columns.items():
            if new_columns.get(name) != column:
                yield f"{table}.{name} is {new_columns.get(name)}, was {column}"
        for name in new_columns.keys() - columns.keys():
            _, nullable, default = new_columns[name]
            if not nullable and default is None:
                yield f"{table}.{name} has no default: inserts of older code fail"
        for new in new_refusing - refusing:
            yield f"{table}: {new} may refuse rows of older code"


def slow(before, statements):
    for statement in statements:
        index = CREATE_INDEX.match(statement.strip())
        if index and index[3] in before and not index[1] and "postgresql" in dialects(statements):
            yield f"{index[2]} stops writing to {index[3]} while it is built: use build_index"
        rows = CHANGE_ROWS.match(statement.strip())
        is_whole = statements.count("COMMIT") == 1
        if rows and is_whole and rows[1] in before.keys() - {"alembic_version", "installation"}:
            yield f"rows of {rows[1]} are changed in one transaction: use in_steps"


def dialects(statements):
    return {"postgresql" if "pg_catalog" in statement else "" for statement in statements}


# --- the migrations of this version --------------------------------------------------------------


def test_each_migration_keeps_the_rules(empty):
    upgrade_schema(empty, LAST_WITH_STOPPED_SERVERS)
    for migration in pending(transact(empty, read_schema, writes=False)):
        assert migration.title, migration.revision
        assert problems_of(empty, migration, MIGRATIONS) == [], migration.revision
    assert transact(empty, read_schema, writes=False) == Schema(SCHEMA_VERSION, OLDEST_SCHEMA)


def test_the_versions_of_the_code_are_those_of_its_migrations():
    migrations = all_migrations()
    needed = [m.revision for m in migrations if m.kind != Kind.CONTRACT]
    oldest = [m.oldest_code for m in migrations if m.kind == Kind.CONTRACT]
    assert migrations[-1].revision == SCHEMA_VERSION
    assert needed[-1] == REQUIRED_SCHEMA
    assert max([LAST_WITH_STOPPED_SERVERS, *oldest]) == OLDEST_SCHEMA
    assert [m.revision for m in migrations] == sorted({m.revision for m in migrations})


# --- each rule, broken ----------------------------------------------------------------------------

NEW_TABLE = "op.create_table('new', sa.Column('a', sa.Integer, primary_key=True))"
KEPT = {
    "a table, with an index": f"{NEW_TABLE}\nop.create_index('new_a', 'new', ['a'])",
    "a column that may be NULL": "op.add_column('accounts', sa.Column('a', sa.Text))",
    "a column with a default": (
        "op.add_column('accounts', sa.Column('a', sa.Integer, server_default='0', nullable=False))"
    ),
    "an index, built beside writers": "build_index('new_i', 'accounts', ['name'])",
    "a partial index": "build_index('new_i', 'accounts', ['name'], 'name IS NOT NULL')",
    "rows in steps": (
        "table = sa.table('accounts', sa.column('name'))\n"
        "none = sa.update(table).where(table.c.name.is_(None)).values(name='')\n"
        "in_steps(lambda c: c.execute(none).rowcount, 'accounts')"
    ),
}
BROKEN = {
    "op.drop_column('faults', 'matched')": "faults.matched is None",
    "op.alter_column('faults', 'matched', new_column_name='hits')": "faults.matched is None",
    "op.execute('ALTER TABLE faults RENAME COLUMN matched TO hits')": "faults.matched is None",
    "with op.batch_alter_table('accounts') as t:\n    t.alter_column('name', nullable=False)": (
        "accounts.name is"
    ),
    "with op.batch_alter_table('accounts') as t:\n    t.alter_column('name', type_=sa.Integer, "
    "postgresql_using='1')": "accounts.name is",
    "with op.batch_alter_table('faults') as t:\n"
    "    t.add_column(sa.Column('a', sa.Integer, nullable=False))": "faults.a has no default",
    "op.create_index('new_i', 'accounts', ['name'], unique=True)": "unique",
    "with op.batch_alter_table('accounts') as t:\n"
    "    t.create_check_constraint('new_c', 'created_at > 5')": "check",
    "op.execute(\"UPDATE accounts SET name = ''\")": "changed in one transaction: use in_steps",
}
# These make the database unusable for this code at once.
LOST = ["op.drop_table('faults')", "op.rename_table('faults', 'errors')"]
ONLY_POSTGRESQL = {"op.create_index('new_i', 'accounts', ['name'])": "use build_index"}


@pytest.mark.parametrize("body", KEPT.values(), ids=KEPT.keys())
def test_an_expanding_migration_may_add(empty, folder, body):
    prepare_schema(empty)
    add_migration(folder, "9001", body)
    assert problems_of(empty, all_migrations(folder)[-1], folder) == []
    prepare_schema(empty)  # this code is of an older schema now, and uses the database


@pytest.mark.parametrize(("body", "words"), [*BROKEN.items(), *ONLY_POSTGRESQL.items()])
def test_an_expanding_migration_may_not(empty, folder, body, words):
    if body in ONLY_POSTGRESQL and empty.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time anyway")
    prepare_schema(empty)
    add_migration(folder, "9001", body)
    found = problems_of(empty, all_migrations(folder)[-1], folder)
    assert any(words in problem for problem in found), found


@pytest.mark.parametrize("body", LOST)
def test_a_migration_may_not_remove_a_table_that_this_code_uses(empty, folder, body):
    prepare_schema(empty)
    add_migration(folder, "9001", body)
    with pytest.raises(SchemaError, match="has no table faults"):
        problems_of(empty, all_migrations(folder)[-1], folder)


def test_a_migration_needs_a_kind(folder):
    add_migration(folder, "9001", "pass", kind="")
    with pytest.raises(SchemaError, match=r"9001 needs `kind`"):
        all_migrations(folder)


def test_a_contracting_migration_needs_the_oldest_code(folder):
    add_migration(folder, "9001", "pass", kind="contract")
    with pytest.raises(SchemaError, match=r"needs `oldest_code` too"):
        all_migrations(folder)


# --- contraction ----------------------------------------------------------------------------------


def test_contracting_migrations_are_run_on_request_only(empty, folder):
    prepare_schema(empty)
    add_migration(folder, "9001", NEW_TABLE)
    add_migration(
        folder, "9002", "op.drop_table('new')", kind="contract", more="oldest_code = '9001'"
    )
    assert upgrade_schema(empty, folder=folder) == (SCHEMA_VERSION, "9001")
    assert upgrade_schema(empty, folder=folder) == ("9001", "9001")
    prepare_schema(empty)
    assert upgrade_schema(empty, contract=True, folder=folder) == ("9001", "9002")
    with pytest.raises(SchemaError, match="only code of schema 9001 or newer may use it"):
        prepare_schema(empty)
    with pytest.raises(SchemaError, match="only code of schema 9001 or newer may use it"):
        upgrade_schema(empty)


def test_a_contraction_comes_before_the_expansion_of_the_next_release(empty, folder):
    prepare_schema(empty)
    add_migration(folder, "9001", "pass", kind="contract", more=f"oldest_code = {SCHEMA_VERSION!r}")
    add_migration(folder, "9002", NEW_TABLE)
    with pytest.raises(SchemaError, match=r"9001 of the version before.* --contract"):
        upgrade_schema(empty, folder=folder)
    assert upgrade_schema(empty, contract=True, folder=folder) == (SCHEMA_VERSION, "9002")
    assert transact(empty, read_schema, writes=False) == Schema("9002", SCHEMA_VERSION)
