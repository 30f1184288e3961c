"""The schema: a new database has the tables that the migrations create; upgrades keep the data."""

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from sendback.store.access.accounts import AddAccount
from sendback.store.engine.changes import ReadGeneration
from sendback.store.engine.dialects import open_engine
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.schema import upgrade_schema
from sendback.store.engine.store import prepare_schema, transact
from sendback.store.engine.tables import SCHEMA_VERSION, metadata
from sendback.store.engine.versions import SchemaError
from tests.conftest import NOW

pytestmark = pytest.mark.sqlite(
    "its migrations were made for SQLite; test_postgresql.py compares schemas"
)


def url(tmp_path, name):
    return f"sqlite:///{tmp_path / name}"


def differences(database):
    engine = open_engine(database, writes=False)
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    return found


def tables(tmp_path, name):
    connection = sqlite3.connect(tmp_path / name)
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchall()
    connection.close()
    # The SQL of indexes is compared, for their conditions; the SQL of a migrated table differs.
    return sorted((kind, name, table, kind == "index" and sql) for kind, name, table, sql in rows)


def test_migrations_and_tables_agree(tmp_path):
    prepare_schema(url(tmp_path, "made"))
    assert upgrade_schema(url(tmp_path, "migrated")) == (None, SCHEMA_VERSION)
    assert differences(url(tmp_path, "migrated")) == []
    assert tables(tmp_path, "made") == tables(tmp_path, "migrated")


def test_upgrading_a_current_schema_does_nothing(tmp_path):
    prepare_schema(url(tmp_path, "x"))
    assert upgrade_schema(url(tmp_path, "x")) == (SCHEMA_VERSION, SCHEMA_VERSION)


def execute(tmp_path, *statements):
    connection = sqlite3.connect(tmp_path / "x")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


SET_VERSION = "UPDATE alembic_version SET version_num = '{}'"
SET_OLDEST = "UPDATE installation SET value = '{}' WHERE name = 'oldest_schema'"


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        ([SET_VERSION.format("0001")], "x has schema 0001.*`sendback db upgrade`"),
        (
            [SET_VERSION.format("9999"), SET_OLDEST.format("9998")],
            "x has schema 9999, made by a newer version.* only code of schema 9998 or newer",
        ),
        (
            [SET_VERSION.format("9999"), "DELETE FROM installation"],
            "x has schema 9999, made by a newer version",
        ),
        ([SET_VERSION.format("ae1027a6acf")], "x has the schema ae1027a6acf.*another program's"),
        (["DELETE FROM alembic_version"], "x has the schema None.*another program's"),
        (["DROP TABLE alembic_version"], "x is another program's.*--database"),
    ],
)
def test_the_error_for_another_schema_says_what_to_do(tmp_path, statements, words):
    prepare_schema(url(tmp_path, "x"))
    execute(tmp_path, *statements)
    before = tables(tmp_path, "x")
    with pytest.raises(SchemaError, match=words):
        prepare_schema(url(tmp_path, "x"))
    assert tables(tmp_path, "x") == before
    if "0001" not in words:
        with pytest.raises(SchemaError, match=words):
            upgrade_schema(url(tmp_path, "x"))
        assert tables(tmp_path, "x") == before


def test_a_newer_schema_is_used_if_its_changes_only_expand(tmp_path):
    prepare_schema(url(tmp_path, "x"))
    execute(tmp_path, SET_VERSION.format("9999"))
    prepare_schema(url(tmp_path, "x"))
    assert upgrade_schema(url(tmp_path, "x")) == ("9999", "9999")


@pytest.mark.parametrize("use", [prepare_schema, upgrade_schema])
def test_the_error_for_a_file_that_is_no_database_says_what_to_do(tmp_path, use):
    (tmp_path / "x").write_bytes(b"no database " * 100)
    with pytest.raises(StoreUnavailableError, match=r"/x: .*--database"):
        use(url(tmp_path, "x"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailableError, match=r"/folder: .*it must be a file"):
        use(url(tmp_path, "folder"))
    with pytest.raises(StoreUnavailableError, match=r"the directory .*/x of the database"):
        use(url(tmp_path, "x/y"))


@pytest.mark.parametrize("use", [prepare_schema, upgrade_schema])
def test_the_error_for_a_truncated_database_says_what_to_do(tmp_path, use):
    prepare_schema(url(tmp_path, "x"))
    octets = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(octets[:9000])
    with pytest.raises(StoreUnavailableError, match=r"/x: .*damaged.* copy .*\.recover"):
        use(url(tmp_path, "x"))


def test_checking_the_schema_waits_for_no_writer(tmp_path):
    prepare_schema(url(tmp_path, "x"))
    writer = sqlite3.connect(tmp_path / "x", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    prepare_schema(url(tmp_path, "x"))
    writer.close()


def test_an_upgrade_adds_domains_and_destinations_to_an_outbox(tmp_path):
    """In 0003 the contents were in the rows of the queue, which had no domains."""
    database = url(tmp_path, "x")
    upgrade_schema(database, "0003")
    connection = sqlite3.connect(tmp_path / "x")
    connection.execute("INSERT INTO accounts VALUES ('000000000000', 0, 0, NULL, NULL)")
    row = (
        "INSERT INTO outbox VALUES (?, '000000000000', 'o', ?, ?, NULL, 1, 2, ?, 3, NULL, 0, 0, '')"
    )
    rows = [
        ("m1", "ann@Bücher.example", b"one", "queued"),
        ("m2", "ann@b.example", b"two", "delivered"),
        ("m3", "no address", b"three", "failed"),
    ]
    connection.executemany(row, rows)
    connection.commit()
    connection.close()
    assert upgrade_schema(database) == ("0003", SCHEMA_VERSION)
    connection = sqlite3.connect(tmp_path / "x")
    query = (
        "SELECT message_id, domain, content FROM outbox JOIN outbox_contents USING (message_id) "
        "ORDER BY message_id"
    )
    assert connection.execute(query).fetchall() == [
        ("m1", "xn--bcher-kva.example", b"one"),
        ("m2", "b.example", b"two"),
        ("m3", "", b"three"),
    ]
    query = "SELECT domain, due_at, failures, paused FROM destinations"
    assert connection.execute(query).fetchall() == [("xn--bcher-kva.example", 3, 0, 0)]
    connection.close()


def test_an_upgrade_adds_the_count_of_leases_to_queues(tmp_path):
    """0004 had no count: it is 0 for queued, leased and finished rows."""
    database = url(tmp_path, "x")
    upgrade_schema(database, "0004")
    columns = "message_id, account_id, original_message_id, recipient, created_at, expires_at"
    outbox = f"INSERT INTO outbox ({columns}, state, due_at, lease_owner, lease_token, attempts) "
    outbox += "VALUES ({}, '000000000000', 'o', 'a@b.example', 1, 2, {}, 3, {}, 7, 2)"
    columns = "processing_id, message_id, account_id, version, rule_set, created_at"
    processing = f"INSERT INTO processing ({columns}, state, due_at, lease_owner, lease_token) "
    processing += "VALUES ({}, 'm', '000000000000', 'v', 'main', 1, {}, 3, {}, 7)"
    rows = [("'a'", "'queued'", "'w'"), ("'b'", "'queued'", "NULL"), ("'c'", "'done'", "NULL")]
    execute(
        tmp_path,
        "INSERT INTO accounts VALUES ('000000000000', 0, 0, NULL, NULL)",
        "INSERT INTO rule_set_versions VALUES ('v', '[]')",
        *(outbox.format(*row) for row in rows),
        *(processing.format(*row) for row in rows),
    )
    assert upgrade_schema(database) == ("0004", SCHEMA_VERSION)
    connection = sqlite3.connect(tmp_path / "x")
    for table, key in (("outbox", "message_id"), ("processing", "processing_id")):
        query = f"SELECT {key}, lease_owner, lease_token, tries FROM {table} ORDER BY 1"
        found = connection.execute(query).fetchall()
        assert found == [("a", "w", 7, 0), ("b", None, 7, 0), ("c", None, 7, 0)]
    assert connection.execute("SELECT kept_at FROM rule_set_versions").fetchall() == [(0,)]
    assert connection.execute("SELECT reason FROM processing").fetchall() == [(None,)] * 3
    connection.close()
    prepare_schema(database)


def test_an_upgrade_sets_domains_in_steps(tmp_path):
    """Migration 0004 sets the domains of a thousand rows at a time."""
    database = url(tmp_path, "x")
    upgrade_schema(database, "0003")
    row = (
        "INSERT INTO outbox VALUES (?, '000000000000', 'o', ?, ?, NULL, 1, 2, 'queued', 3, NULL, "
        "0, 0, '')"
    )
    connection = sqlite3.connect(tmp_path / "x")
    connection.execute("INSERT INTO accounts VALUES ('000000000000', 0, 0, NULL, NULL)")
    rows = [(f"m{number:05}", f"a@d{number % 7}.example", b"x") for number in range(2500)]
    connection.executemany(row, rows)
    connection.commit()
    connection.close()
    upgrade_schema(database)
    connection = sqlite3.connect(tmp_path / "x")
    query = "SELECT count(*), count(DISTINCT domain) FROM outbox WHERE domain LIKE 'd_.example'"
    assert connection.execute(query).fetchone() == (2500, 7)
    connection.close()


def test_changes_are_counted_after_an_upgrade(tmp_path):
    database = url(tmp_path, "x")
    assert upgrade_schema(database, "0006") == (None, "0006")
    assert upgrade_schema(database) == ("0006", SCHEMA_VERSION)
    numbers = []
    for account_id in ("000000000000", "111111111111", "111111111111"):
        transact(database, AddAccount(account_id, NOW), writes=True)
        numbers.append(transact(database, ReadGeneration(), writes=False))
    assert numbers[1] == numbers[0] + 1
    assert numbers[2] == numbers[1]  # the account existed: no change
