"""The schema: what is made for an empty database is what the migrations make."""

import sqlite3

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from sendback.store.dialects import open_engine
from sendback.store.migrate import upgrade_schema
from sendback.store.store import SchemaError, prepare_schema
from sendback.store.tables import SCHEMA_VERSION, metadata


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
    rows = connection.execute("SELECT type, name, tbl_name FROM sqlite_master").fetchall()
    connection.close()
    return sorted(rows)


def test_migrations_and_tables_agree(tmp_path):
    prepare_schema(url(tmp_path, "made"))
    assert upgrade_schema(url(tmp_path, "migrated")) == (None, SCHEMA_VERSION)
    assert differences(url(tmp_path, "migrated")) == []
    assert tables(tmp_path, "made") == tables(tmp_path, "migrated")


def test_upgrading_what_is_up_to_date_does_nothing(tmp_path):
    prepare_schema(url(tmp_path, "x"))
    assert upgrade_schema(url(tmp_path, "x")) == (SCHEMA_VERSION, SCHEMA_VERSION)


def test_another_schema_is_refused_with_what_to_do(tmp_path):
    prepare_schema(url(tmp_path, "x"))
    connection = sqlite3.connect(tmp_path / "x")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(SchemaError, match="sendback db upgrade"):
        prepare_schema(url(tmp_path, "x"))


def test_an_outbox_from_before_destinations_is_taken_along(tmp_path):
    """0003 had contents in the queue's rows, and no domains."""
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
