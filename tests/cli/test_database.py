"""Commands on an unusable database print its name and what to do, with exit code 1."""

import sqlite3

import pytest

from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.sendback import Sendback, run_cli

pytestmark = pytest.mark.sqlite("it damages the file of the database")


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A data directory with 31 messages, one of which has its body in a file."""
    server = Sendback(tmp_path_factory.mktemp("filled")).start()
    ses(server.endpoint).verify_domain_identity(Domain="example.com")
    send_mail(server.smtp_port, content=MAIL + (b"y" * 98 + b"\r\n") * 4000)
    for _ in range(30):
        send_mail(server.smtp_port, content=MAIL + b"x" * 900)
    server.stop()
    return server


@pytest.fixture
def server(filled):
    """The server of `filled`, whose database is restored after each test."""
    database = filled.data_dir / "sendback.db"
    octets = database.read_bytes()
    yield filled
    if database.is_dir():
        database.rmdir()
    for path in filled.data_dir.glob("sendback.db-*"):
        path.unlink()
    database.write_bytes(octets)


def truncated(database, octets):
    database.write_bytes(octets[: len(octets) // 3])


def foreign(database, _):
    database.write_bytes(b"no database at all " * 500)


def newer(database, _):
    connection = sqlite3.connect(database)
    connection.execute("UPDATE alembic_version SET version_num = '7000'")
    connection.execute("UPDATE installation SET value = '7000' WHERE name = 'oldest_schema'")
    connection.commit()
    connection.close()


def without_a_table(database, _):
    connection = sqlite3.connect(database)
    connection.execute("DROP TABLE attempts")
    connection.commit()
    connection.close()


def without_a_column(database, _):
    connection = sqlite3.connect(database)
    connection.execute("ALTER TABLE messages RENAME COLUMN size TO octets")
    connection.execute("ALTER TABLE access_keys RENAME COLUMN created_at TO made_at")
    connection.commit()
    connection.close()


def of_two_versions(database, _):
    connection = sqlite3.connect(database)
    connection.execute("INSERT INTO alembic_version VALUES ('0001')")
    connection.commit()
    connection.close()


def of_another_program(database, _):
    database.unlink()
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()


def folder(database, _):
    database.unlink()
    database.mkdir()


BROKEN = {
    truncated: ("is malformed", "sendback.db .recover | sqlite3 /"),
    foreign: ("is not a database", "--database"),
    newer: ("schema 7000", "install the newer version"),
    without_a_table: ("has no table attempts", "put a copy"),
    of_two_versions: ("has the schema None", "--database"),
    of_another_program: ("another program's", "--database"),
    folder: ("unable to open", "must be a file"),
}
COMMANDS = [
    ("serve", "--http-listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0"),
    ("messages", "list"),
    ("outbox", "summary"),
    ("keys", "create"),
    ("doctor",),
    ("db", "upgrade"),
    ("db", "check"),
]


@pytest.mark.parametrize("command", [("messages", "list"), ("keys", "list")], ids=" ".join)
def test_a_missing_column_is_no_bug_of_sendback(server, command):
    database = server.data_dir / "sendback.db"
    without_a_column(database, b"")
    done = server.run(*command, check=False)
    assert done.returncode == 1, done
    assert "no such column" in done.stderr
    assert "put a copy in its place" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1  # the reason is printed once


@pytest.mark.parametrize("spoil", BROKEN, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_names_the_file_and_what_to_do(server, spoil, command):
    database = server.data_dir / "sendback.db"
    spoil(database, database.read_bytes())
    done = server.run(*command, check=False)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    what, advice = BROKEN[spoil]
    if (spoil, command) == (folder, ("db", "check")):
        what, advice = "there is no database", ""
    assert what in done.stderr
    assert advice in done.stderr
    assert "sendback.db" in done.stderr


def test_check_of_a_sound_store(server):
    done = server.run("db", "check")
    assert (
        done.stdout
        == f"{server.data_dir / 'sendback.db'} is sound, and every message body exists.\n"
    )


def test_check_finds_a_missing_body(server):
    (blob,) = (server.data_dir / "blobs").iterdir()
    moved = blob.rename(server.folder / "moved")
    done = server.run("db", "check", check=False)
    moved.rename(blob)
    assert done.returncode == 1
    assert f"there is no blob {blob.name}" in done.stdout


def test_check_finds_a_damaged_page_and_a_row_without_its_parent(server):
    database = server.data_dir / "sendback.db"
    connection = sqlite3.connect(database)
    connection.execute("DELETE FROM accounts")
    connection.commit()
    root = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'messages_by_account'"
    ).fetchone()[0]
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with database.open("r+b") as file:
        file.seek((root - 1) * 4096 + 8)
        file.write(b"\xff" * 200)
    done = server.run("db", "check", check=False)
    assert done.returncode == 1
    assert "names a row of accounts that is not there" in done.stdout
    assert len(done.stdout.splitlines()) > 1
    assert "Traceback" not in done.stderr


def test_a_data_directory_that_is_a_file(tmp_path):
    (tmp_path / "data").write_text("in the way")
    for command in (("keys", "create"), ("db", "upgrade"), ("messages", "list")):
        done = run_cli(*command, "--data-dir", str(tmp_path / "data"), check=False)
        assert done.returncode == 1
        assert f"{tmp_path}/data" in done.stderr
        assert "Traceback" not in done.stderr
