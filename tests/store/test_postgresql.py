"""PostgreSQL: connections, what its errors mean, and what the store does when it is away.

Each test of this module that stops or changes the server has one of its own.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from sendback.store.access.accounts import AddAccount
from sendback.store.engine import postgresql
from sendback.store.engine.dialects import open_engine, tune
from sendback.store.engine.errors import (
    CommitUnknownError,
    DatabaseUrlError,
    StoreUnavailableError,
)
from sendback.store.engine.integrity import check_store
from sendback.store.engine.schema import upgrade_schema
from sendback.store.engine.store import prepare_schema, transact
from sendback.store.engine.transactions import TransactionThread
from tests.conftest import NOW, need
from tests.partners.pgbouncer import PgBouncer
from tests.partners.postgresql import binaries, private_server, query
from tests.partners.proxy import Proxy

pytestmark = pytest.mark.sqlite("it has a server of its own in either run")


@pytest.fixture(scope="module")
def server():
    need("PostgreSQL", available=binaries() is not None)
    with private_server(max_connections="12") as found:
        yield found


@pytest.fixture
def url(server):
    """A database with a table of numbers, and one that refers to it."""
    found = server.create_empty()
    query(found, "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    return found


@contextmanager
def running(url, **options):
    thread = TransactionThread(open_engine(url, writes=True), "test", **options)
    try:
        yield thread
    finally:
        thread.close()


def adding(number, runs=None):
    def unit(connection):
        if runs is not None:
            runs.append(number)
        connection.execute(text("INSERT INTO t VALUES (:number)"), {"number": number})
        return number

    return unit


def rows(url):
    return [number for (number,) in query(url, "SELECT id FROM t ORDER BY id")]


# --- URLs and sessions ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("postgresql://bob:pass/word@db.example/mail", "cannot be read.*%2F"),
        ("postgresql://bob:pass%zz@db.example/mail", "cannot be read"),
        ("postgresql://bob:password@db.example/mail?sslmod=require", "parameter sslmod, which"),
        ("postgresql://bob:password@db.example:port/mail", "cannot be read"),
    ],
)
def test_a_url_with_a_typo_is_refused_without_its_password(given, words):
    with pytest.raises(DatabaseUrlError, match=words) as caught:
        open_engine(given, writes=True)
    assert "pass" not in str(caught.value).replace("password", "")
    assert "bob" not in str(caught.value)


def test_the_url_of_an_engine_has_no_password():
    engine = open_engine("postgres://bob:s3cret@a,b:1,2/mail?password=other", writes=True)
    assert "s3cret" not in repr(engine.url.render_as_string(hide_password=False))
    assert "other" not in repr(engine.url.render_as_string(hide_password=False))
    assert engine.url.database == "mail"


def test_parameters_of_the_url_come_before_our_own_and_variables_after(url, monkeypatch):
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=123kB")
    engine = open_engine(f"{url}&application_name=mine", writes=True)
    with engine.begin() as connection:
        found = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("application_name", "work_mem")
        ]
    engine.dispose()
    assert found == ["mine", "123kB"]


def settings_of(url, writes):
    names = (
        "transaction_isolation", "transaction_read_only", "statement_timeout", "lock_timeout",
        "idle_in_transaction_session_timeout", "synchronous_commit",
    )  # fmt: skip
    engine = open_engine(url, writes=writes)
    with engine.begin() as connection:
        found = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
    engine.dispose()
    return found


WRITING = ["read committed", "off", "30s", "5s", "1min", "on"]
READING = ["repeatable read", "on", "30s", "5s", "1min", "on"]


def test_each_transaction_has_its_settings(url):
    assert settings_of(url, writes=True) == WRITING
    assert settings_of(url, writes=False) == READING


def test_a_database_that_loses_commits_is_told_not_to(server, url):
    name = url.split("/")[3].partition("?")[0]
    server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
    assert settings_of(url, writes=True) == WRITING


@pytest.fixture
def bouncer(server, tmp_path):
    need("PgBouncer", available=PgBouncer.is_installed())
    with PgBouncer(server, tmp_path) as found:
        yield found


def test_transactions_have_their_settings_behind_pgbouncer(bouncer, url):
    """Two clients share a session: what one sets for its session, the other would get."""
    pooled = bouncer.url(url)
    assert settings_of(pooled, writes=True) == WRITING
    assert settings_of(pooled, writes=False) == READING
    with psycopg.connect(pooled, autocommit=True) as other:
        assert other.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_statements_that_are_repeated_work_behind_pgbouncer(bouncer, url):
    """The driver would prepare the sixth; the session of the next transaction may not know it."""
    pooled = bouncer.url(url)

    async def main():
        with running(pooled) as one, running(pooled) as two:
            for number in range(40):
                await asyncio.gather(one.run(adding(number)), two.run(adding(1000 + number)))

    asyncio.run(main())
    assert len(rows(url)) == 80
    with psycopg.connect(pooled, autocommit=True) as other:
        assert other.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


# --- what cannot be used -------------------------------------------------------------------------


def test_each_reason_why_a_server_cannot_be_used_says_what_to_do(server, url):
    server.execute("DROP ROLE IF EXISTS nobody")
    server.execute("CREATE ROLE nobody LOGIN")
    as_nobody = url.replace("sendback@", "nobody@")
    cases = {
        "postgresql://127.0.0.1:1/x": "Connection refused.*check host and port",
        "postgresql://nohost.invalid/x": "check the name of the host",
        "postgresql:///x?host=/nowhere": "No such file.*check host and port",
        url.replace("test_", "absent_"): "absent_.* does not exist.*create it with `createdb`",
        url.replace("sendback@", "absent@"): 'role "absent" does not exist.*name a user',
        f"{url}&sslmode=requir": "invalid sslmode.*check sslmode",
    }
    for given, words in cases.items():
        with pytest.raises(StoreUnavailableError, match=words):
            prepare_schema(given)
    query(url, "DROP TABLE t")
    with pytest.raises(StoreUnavailableError, match=r"permission denied.*GRANT USAGE, CREATE"):
        prepare_schema(as_nobody)


def test_an_old_server_and_another_encoding_are_refused(server, url, monkeypatch):
    monkeypatch.setattr(postgresql, "OLDEST_SERVER", 990_000)
    with pytest.raises(StoreUnavailableError, match=r"is PostgreSQL 1\d, .*needs version 99"):
        prepare_schema(url)
    monkeypatch.undo()
    server.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StoreUnavailableError, match=r"encoding LATIN1.*UTF8"):
        prepare_schema(server.url("latin"))


# --- the schema ----------------------------------------------------------------------------------


def described(url):
    """Columns with their collations and storage, indexes, and the options of tables."""
    columns = query(url, "SELECT table_name, column_name, data_type, character_maximum_length, "
                    "is_nullable, column_default, collation_name FROM information_schema.columns "
                    "WHERE table_schema = 'public' ORDER BY 1, 2")  # fmt: skip
    indexes = query(url, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
    storage = query(url, "SELECT c.relname, a.attname, a.attstorage::text, c.reloptions::text "
                    "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attnum > 0 "
                    "AND c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' "
                    "AND NOT a.attisdropped ORDER BY 1, 2")  # fmt: skip
    keys = query(url, "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM "
                 "pg_constraint WHERE connamespace = 'public'::regnamespace "
                 "ORDER BY 1, 2")  # fmt: skip
    return columns, indexes, storage, keys


def test_a_created_and_a_migrated_schema_are_equal(server):
    created, migrated = server.create_empty(), server.create_empty()
    prepare_schema(created)
    upgrade_schema(migrated)
    assert described(created) == described(migrated)
    columns, _, storage, _ = described(created)
    assert {row[-1] for row in columns if row[2] in {"text", "character varying"}} == {"C"}
    assert ("messages", "body", "e", None) in storage
    assert any("fillfactor" in (row[3] or "") for row in storage)


def test_tuning_a_tuned_schema_changes_nothing(server):
    url = server.create_empty()
    prepare_schema(url)
    statements = []
    engine = open_engine(url, writes=True)
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    with engine.begin() as connection:
        tune(connection)
    engine.dispose()
    assert not [statement for statement in statements if "ALTER" in statement]


def test_two_first_starts_at_once(server):
    url = server.create_empty()
    errors = []

    def start():
        try:
            prepare_schema(url)
            transact(url, AddAccount("000000000000", NOW), writes=True)
        except Exception as error:  # noqa: BLE001 - asserted below
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert query(url, "SELECT count(*) FROM accounts") == [(1,)]


def test_the_check_finds_rows_without_their_parent(server, tmp_path):
    url = server.create_empty()
    prepare_schema(url)
    assert check_store(url, tmp_path) == []
    query(url, "ALTER TABLE users DISABLE TRIGGER ALL; INSERT INTO users VALUES ('1', 'ann', 0)")
    assert check_store(url, tmp_path) == [
        "1 rows of users name a row of accounts that is not there"
    ]


# --- errors of units -----------------------------------------------------------------------------


def sql(statement, *parameters):
    return lambda connection: connection.exec_driver_sql(statement, *parameters)


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (sql("SELECT * FROM nowhere"), ProgrammingError),
        (sql("SELEC 1"), ProgrammingError),
        (sql("SELECT 1 / 0"), DBAPIError),
        (sql("SELECT %s::text", ("a\0b",)), DBAPIError),
        (sql("INSERT INTO t VALUES (NULL)"), IntegrityError),
        (sql("INSERT INTO t VALUES (%s)", (2**40,)), DBAPIError),
    ],
)
def test_an_error_of_a_unit_is_its_own(url, bad, kind):
    async def main():
        with running(url) as thread:
            units = [thread.run(adding(1)), thread.run(bad), thread.run(adding(2))]
            return await asyncio.gather(*units, return_exceptions=True)

    first, error, second = asyncio.run(main())
    assert (first, second) == (1, 2)
    assert isinstance(error, kind)
    assert not isinstance(error, StoreUnavailableError)
    assert rows(url) == [1, 2]


def test_a_conflict_is_run_again_until_it_is_gone(url):
    runs = []

    def unit(connection):
        runs.append(1)
        if len(runs) < 4:
            connection.exec_driver_sql("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
        return "done"

    async def main():
        with running(url) as thread:
            return await thread.run(unit)

    assert asyncio.run(main()) == "done"
    assert len(runs) == 4


def test_a_row_that_is_there_already_is_the_units_error_after_six_runs(url):
    query(url, "INSERT INTO t VALUES (7)")
    runs = []

    async def main():
        with running(url) as thread:
            return await asyncio.gather(
                *(thread.run(adding(number, runs)) for number in (6, 7, 8)), return_exceptions=True
            )

    six, error, eight = asyncio.run(main())
    assert (six, eight) == (6, 8)
    assert isinstance(error, IntegrityError)
    assert runs.count(7) in {6, 7}  # once in the group, or not
    assert rows(url) == [6, 7, 8]


def test_two_units_that_deadlock_both_succeed(url):
    query(url, "INSERT INTO t VALUES (1), (2)")
    both = threading.Barrier(2, timeout=20)
    waits = {1: True, 2: True}

    def locking(first, second):
        def unit(connection):
            connection.execute(text("UPDATE t SET id = id WHERE id = :id"), {"id": first})
            if waits[first]:
                waits[first] = False
                both.wait()
            connection.execute(text("UPDATE t SET id = id WHERE id = :id"), {"id": second})
            return first

        return unit

    async def main():
        with running(url) as one, running(url) as two:
            return await asyncio.gather(one.run(locking(1, 2)), two.run(locking(2, 1)))

    assert asyncio.run(main()) == [1, 2]


def test_a_row_that_stays_locked_makes_the_store_unavailable(url):
    query(url, "INSERT INTO t VALUES (1)")

    async def main():
        with running(url) as thread, psycopg.connect(url) as other:
            other.execute("SELECT * FROM t FOR UPDATE")
            await thread.run(sql("SET lock_timeout = '100ms'"))
            with pytest.raises(StoreUnavailableError, match="another transaction holds its rows"):
                await thread.run(sql("UPDATE t SET id = 2"))
            other.rollback()
            await thread.run(sql("UPDATE t SET id = 2"))

    asyncio.run(main())
    assert rows(url) == [2]


def test_a_statement_that_takes_too_long_is_unavailable(url):
    async def main():
        with running(url) as thread:
            await thread.run(sql("SET statement_timeout = '100ms'"))
            with pytest.raises(StoreUnavailableError, match="took too long"):
                await thread.run(sql("SELECT pg_sleep(5)"))
            assert await thread.run(adding(1)) == 1

    asyncio.run(main())


# --- a server that is away -----------------------------------------------------------------------

END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sendback'"


def test_a_connection_that_was_lost_is_replaced_before_commit(url):
    """Between transactions, and in one, which is run again."""
    runs = []

    def losing(connection):
        runs.append(1)
        if len(runs) == 1:
            query(url, END)
        return adding(2)(connection)

    async def main():
        with running(url) as thread:
            await thread.run(adding(0))
            query(url, END)
            await thread.run(adding(1))
            assert await thread.run(losing) == 2

    asyncio.run(main())
    assert len(runs) == 2
    assert rows(url) == [0, 1, 2]


def test_a_connection_that_is_lost_twice_is_unavailable(url):
    async def main():
        with running(url) as thread:
            with pytest.raises(StoreUnavailableError, match="terminating connection"):
                await thread.run(lambda connection: (query(url, END), adding(1)(connection)))
            assert await thread.run(adding(2)) == 2

    asyncio.run(main())
    assert rows(url) == [2]


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_transaction_whose_commit_is_lost_is_not_run_again(server, url, lost):
    """The proxy ends the connection instead of COMMIT, or instead of its reply."""
    runs = []

    async def main():
        with Proxy(server.folder / ".s.PGSQL.5432") as proxy:
            with running(proxy.url(url)) as thread:
                await thread.run(adding(1))
                proxy.end_at(b"COMMIT\0", lost)
                with pytest.raises(CommitUnknownError, match="test_"):
                    await thread.run(adding(2, runs))
                assert await thread.run(adding(3)) == 3

    asyncio.run(main())
    assert runs == [2]
    assert rows(url) == ([1, 3] if lost == "before" else [1, 2, 3])


def test_a_read_whose_commit_is_lost_is_run_again(server, url):
    async def main():
        with Proxy(server.folder / ".s.PGSQL.5432") as proxy:
            with running(proxy.url(url), writes=False) as thread:
                proxy.end_at(b"COMMIT\0", "before")
                assert await thread.run(sql("SELECT 1"))

    asyncio.run(main())


def test_a_server_without_connections_is_unavailable_and_recovers_by_itself(server, url):
    async def main():
        with running(url) as thread:
            taken = [psycopg.connect(server.url("postgres")) for _ in range(12)]
            with pytest.raises(StoreUnavailableError, match="raise max_connections"):
                await thread.run(adding(1))
            for connection in taken:
                connection.close()
            return await recovered(thread, adding(2))

    assert asyncio.run(main()) < 5
    assert rows(url) == [2]


async def recovered(thread, unit):
    """Return after how many seconds the unit succeeded."""
    started = time.monotonic()
    while True:
        try:
            await thread.run(unit)
            return time.monotonic() - started
        except StoreUnavailableError:
            await asyncio.sleep(0.05)


def test_a_read_only_server_is_unavailable_and_recovers_by_itself(server, url):
    def set_read_only(value):
        server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        server.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)

    async def main():
        with running(url) as thread:
            await thread.run(adding(1))
            set_read_only("on")
            with pytest.raises(StoreUnavailableError, match="it is read-only"):
                await thread.run(adding(2))
            server.execute("SET default_transaction_read_only = off", "ALTER SYSTEM RESET ALL")
            server.execute("SELECT pg_reload_conf()")
            return await recovered(thread, adding(3))

    assert asyncio.run(main()) < 5
    assert rows(url) == [1, 3]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_stopped_server_fails_units_at_once_and_they_succeed_after_its_start(server, url, mode):
    async def main():
        with running(url) as thread:
            await thread.run(adding(1))
            server.stop(mode)
            started = time.monotonic()
            for number in range(20):
                with pytest.raises(StoreUnavailableError):
                    await thread.run(adding(100 + number))
            assert time.monotonic() - started < 3
            server.start()
            return await recovered(thread, adding(2))

    assert asyncio.run(main()) < 5
    assert rows(url) == [1, 2]


def test_attempts_to_connect_are_bounded_while_the_server_is_away():
    """A connection for each unit would keep a server busy that has just started."""
    attempts = []
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]

        def refuse():
            while True:
                try:
                    closing.accept()[0].close()
                except OSError:
                    return
                attempts.append(1)

        refusing = threading.Thread(target=refuse)
        refusing.start()

        async def main():
            with running(f"postgresql://127.0.0.1:{port}/x?sslmode=disable") as thread:
                end, units = time.monotonic() + 2, 0
                while time.monotonic() < end:
                    with pytest.raises(StoreUnavailableError):
                        await thread.run(adding(1))
                    units += 1
                return units

        units = asyncio.run(main())
        closing.shutdown(socket.SHUT_RDWR)
        refusing.join()
    assert units > 100
    assert 2 <= len(attempts) <= 6


def test_a_silent_server_blocks_neither_the_loop_nor_close(server, url):
    """A proxy that keeps the connection, and sends nothing."""

    async def main():
        with Proxy(server.folder / ".s.PGSQL.5432") as proxy:
            thread = TransactionThread(open_engine(proxy.url(url), writes=True), "test")
            await thread.run(adding(1))
            proxy.pause()
            waiting = asyncio.ensure_future(thread.run(adding(2)))
            await asyncio.sleep(0.2)
            started = time.monotonic()
            closing = asyncio.get_running_loop().run_in_executor(None, thread.close)
            await asyncio.wait_for(closing, 25)
            assert time.monotonic() - started < 20
            with pytest.raises(StoreUnavailableError):
                await waiting

    asyncio.run(main())


def test_a_transaction_that_hangs_is_ended(server, url, monkeypatch):
    monkeypatch.setattr(postgresql, "HANG_SECONDS", 0.5)

    async def main():
        with Proxy(server.folder / ".s.PGSQL.5432") as proxy:
            with running(proxy.url(url)) as thread:
                await thread.run(adding(1))
                proxy.pause()
                resume = asyncio.get_running_loop().call_later(3, proxy.resume)
                assert await thread.run(adding(2)) == 2
                resume.cancel()

    asyncio.run(main())
    assert rows(url) == [1, 2]


@pytest.fixture
def small_space(server):
    """The tablespace `small`, on a disk of 12 MB; the path of a file of 6 MB on it."""
    with tempfile.TemporaryDirectory(prefix="sendback-small-") as folder:
        options = "size=12m,mode=0777"
        mounted = (
            os.geteuid() == 0
            and not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True
            ).returncode
        )
        need("a file system of one's own (root)", available=mounted)
        Path(folder).chmod(0o777)
        Path(folder, "place").mkdir()
        shutil.chown(Path(folder, "place"), "postgres", "postgres")
        server.execute(f"CREATE TABLESPACE small LOCATION '{folder}/place'")
        ballast = Path(folder, "ballast")
        ballast.write_bytes(bytes(6 * 2**20))
        yield ballast
        server.execute("CHECKPOINT", "DROP TABLESPACE small")
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_unavailable_and_recovers_by_itself(url, small_space):
    query(url, "CREATE TABLE big (octets BYTEA) TABLESPACE small")
    query(url, "ALTER TABLE big ALTER COLUMN octets SET STORAGE EXTERNAL")

    def insert(connection):
        values = {"octets": os.urandom(4 * 2**20)}
        connection.execute(text("INSERT INTO big VALUES (:octets)"), values)

    async def main():
        with running(url) as thread:
            await thread.run(insert)
            with pytest.raises(StoreUnavailableError, match="its disk is full: free some space"):
                await thread.run(insert)
            assert await thread.run(adding(1)) == 1
            small_space.unlink()
            await thread.run(insert)

    try:
        asyncio.run(main())
        assert query(url, "SELECT count(*) FROM big") == [(2,)]
    finally:
        query(url, "DROP TABLE big")


def test_psycopg_is_not_imported_for_sqlite():
    program = (
        "import sys; from sendback.store.engine.store import prepare_schema;"
        "prepare_schema('sqlite://'); print('psycopg' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_missing_driver_says_what_to_install():
    program = (
        "import sys; sys.modules['psycopg'] = None\n"
        "from sendback.__main__ import main\n"
        "sys.argv = ['sendback', 'db', 'create', '--database', 'postgresql://127.0.0.1:1/x']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'sendback[postgresql]'" in done.stderr
