"""`sendback db upgrade` while others use the database, by two at once, and interrupted."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from sendback.service.nodes import NodeRecord
from sendback.store.engine.dialects import open_engine
from sendback.store.engine.nodes import ForgetNode, RecordNode, serving_nodes
from sendback.store.engine.store import Store, prepare_schema, transact
from sendback.store.engine.tables import SCHEMA_VERSION
from sendback.store.engine.versions import SchemaError, read_schema
from tests.conftest import need
from tests.partners.next_version import NextVersion
from tests.partners.postgresql import binaries, query, shared_server
from tests.partners.sendback import run_cli
from tests.partners.waiting import wait_for

pytestmark = pytest.mark.sqlite("it runs on both databases in either run")

# A thousand accounts get names, ten at a time: 100 steps of 30 ms.
IN_STEPS = """\
names = sa.text(
    "UPDATE accounts SET name = 'n' WHERE account_id IN "
    "(SELECT account_id FROM accounts WHERE name IS NULL LIMIT 10)"
)
def step(connection):
    time.sleep(0.03)
    return connection.execute(names).rowcount
in_steps(step, "accounts")"""
WHOLE = """\
op.create_table("added", sa.Column("a", sa.Integer))
op.add_column("accounts", sa.Column("b", sa.Text))
time.sleep(3)"""


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """The URL of a database of this version."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'x'}"
    else:
        need("PostgreSQL", available=binaries() is not None)
        url = shared_server().create_empty()
    prepare_schema(url)
    yield url
    if request.param == "postgresql":
        shared_server().drop(url)


@pytest.fixture
def following(tmp_path):
    return NextVersion(tmp_path / "next")


class Upgrading:
    """`sendback db upgrade` of the next version, as a process."""

    def __init__(self, tmp_path, following, database, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sendback", "db", "upgrade", *options,
             "--data-dir", str(tmp_path / "data"), "--database", database],
            env={**os.environ, **following.environment},
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait_for(self, words):
        """Read the lines of progress until one has these words."""
        for line in self.process.stderr:
            if words in line:
                return
        raise AssertionError(f"the upgrade ended without {words}")

    def end(self):
        """Its exit code and its whole output."""
        output, errors = self.process.communicate(timeout=60)
        return self.process.returncode, output + errors


def version(database):
    return transact(database, read_schema, writes=False).version


def add_accounts(database, count=1000):
    engine = open_engine(database, writes=True)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO accounts (account_id, created_at, last_bounce_at) VALUES "
            + ", ".join(f"('{number:012}', 0, 0)" for number in range(count))
        )
    engine.dispose()


def nameless(database):
    return query(database, "SELECT count(*) FROM accounts WHERE name IS NULL")[0][0]


@pytest.mark.parametrize("body", [IN_STEPS, WHOLE], ids=["steps", "whole"])
def test_two_upgrades_at_once_do_each_migration_once(tmp_path, database, following, body):
    add_accounts(database, 200)
    following.add("9001", body)
    following.add("9002", "op.create_table('second', sa.Column('a', sa.Integer))")
    both = [Upgrading(tmp_path, following, database) for _ in range(2)]
    for code, output in [upgrading.end() for upgrading in both]:
        assert code == 0, output
    assert version(database) == "9002"
    assert query(database, "SELECT count(*) FROM second")[0][0] == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_upgrade_that_is_interrupted_between_steps_continues(
    tmp_path, database, following, number
):
    add_accounts(database)
    following.add("9001", IN_STEPS)
    upgrading = Upgrading(tmp_path, following, database)
    upgrading.wait_for("30 accounts")
    upgrading.process.send_signal(number)
    code, output = upgrading.end()
    assert code == (130 if number == signal.SIGINT else -number), output
    assert version(database) == SCHEMA_VERSION
    assert 0 < nameless(database) < 1000
    prepare_schema(database)  # this version uses it meanwhile
    assert Upgrading(tmp_path, following, database).end()[0] == 0
    assert version(database) == "9001"
    assert nameless(database) == 0


def test_an_upgrade_that_is_killed_in_a_transaction_changes_nothing(tmp_path, database, following):
    following.add("9001", WHOLE)
    upgrading = Upgrading(tmp_path, following, database)
    upgrading.wait_for("9001 (expand)")
    time.sleep(1)
    upgrading.process.kill()
    upgrading.end()
    assert version(database) == SCHEMA_VERSION
    with pytest.raises(Exception, match="added"):
        query(database, "SELECT * FROM added")
    assert Upgrading(tmp_path, following, database).end()[0] == 0
    assert version(database) == "9001"


def test_an_index_whose_build_was_killed_is_built_again(tmp_path, following):
    need("PostgreSQL", available=binaries() is not None)
    database = shared_server().create()
    following.add("9001", "build_index('new_i', 'accounts', ['name'])")
    with psycopg.connect(database) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")  # it has a snapshot, whose end the build waits for
        upgrading = Upgrading(tmp_path, following, database)
        waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONC%'"
        wait_for(lambda: query(database, f"{waits} AND wait_event_type = 'Lock'")[0][0] == 1, 60)
        upgrading.process.kill()
        upgrading.end()
        wait_for(lambda: query(database, f"{waits} AND state = 'active'")[0][0] == 0)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('new_i')"
    assert query(database, valid) == [(False,)]
    assert version(database) == SCHEMA_VERSION
    code, output = Upgrading(tmp_path, following, database).end()
    assert code == 0, output
    assert query(database, valid) == [(True,)]
    shared_server().drop(database)


def test_a_migration_that_waits_for_a_lock_lets_the_traffic_pass(tmp_path, following):
    """A waiting ALTER TABLE makes every later statement wait, even readers."""
    need("PostgreSQL", available=binaries() is not None)
    database = shared_server().create()
    following.add("9001", "op.add_column('accounts', sa.Column('b', sa.Text))")
    slowest, ended = 0.0, threading.Event()

    def read():
        nonlocal slowest
        with psycopg.connect(database, autocommit=True) as connection:
            while not ended.wait(0.01):
                started = time.monotonic()
                connection.execute("SELECT count(*) FROM accounts")
                slowest = max(slowest, time.monotonic() - started)

    reading = threading.Thread(target=read)
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM accounts")  # holds ACCESS SHARE until it ends
        reading.start()
        upgrading = Upgrading(tmp_path, following, database)
        upgrading.wait_for("it will be tried again")
        upgrading.wait_for("it will be tried again")
    code, output = upgrading.end()
    ended.set()
    reading.join()
    assert code == 0, output
    assert version(database) == "9001"
    assert 0.3 < slowest < 3
    shared_server().drop(database)


def test_nodes_are_known_while_they_serve(database):
    for name in ("a:1", "b:2"):
        transact(database, RecordNode(name, "1.0"), writes=True)
    first = transact(database, serving_nodes, writes=False)
    assert [(node.name, node.version, node.schema) for node in first] == [
        ("a:1", "1.0", SCHEMA_VERSION),
        ("b:2", "1.0", SCHEMA_VERSION),
    ]
    transact(database, ForgetNode("a:1"), writes=True)
    assert transact(database, RecordNode("b:2", "1.0"), writes=True).version == SCHEMA_VERSION
    second = transact(database, serving_nodes, writes=False)
    assert [node.name for node in second] == ["b:2"]
    assert second[0].started_at == first[1].started_at
    assert second[0].seen_at >= first[1].seen_at


def test_a_node_that_was_not_seen_for_a_minute_is_gone(database):
    transact(database, RecordNode("a:1", "1.0"), writes=True)
    value = query(database, "SELECT value FROM installation WHERE name LIKE 'node %'")[0][0]
    seen = transact(database, serving_nodes, writes=False)[0].seen_at
    milliseconds = int(seen.timestamp() * 1000)
    older = value.replace(f'"seen_at": {milliseconds}', f'"seen_at": {milliseconds - 61_000}')
    assert older != value
    query(database, "UPDATE installation SET value = :value WHERE name LIKE 'node %'", value=older)
    assert transact(database, serving_nodes, writes=False) == []


def test_a_node_that_was_suspended_while_the_database_was_contracted_ends(tmp_path, database):
    async def record():
        store = Store(database, tmp_path / "data")
        try:
            node = NodeRecord(store, "a:1")
            await node.record()
            query(database, "UPDATE alembic_version SET version_num = '9999'")
            await node.record()  # expanded: it may serve
            query(database, "UPDATE installation SET value = '9999' WHERE name = 'oldest_schema'")
            with pytest.raises(SchemaError, match=r"only code|newer version"):
                await node.record()
        finally:
            store.close()

    asyncio.run(record())


def test_contracting_is_refused_while_an_older_node_serves(tmp_path, database, following):
    following.add("9001", "op.create_table('added', sa.Column('a', sa.Integer))")
    following.add("9002", "op.drop_table('added')", kind="contract", more="oldest_code = '9001'")
    transact(database, RecordNode("old:1", "0.9"), writes=True)
    code, output = Upgrading(tmp_path, following, database, "--contract").end()
    assert code == 1
    assert "these serve: old:1 (0.9): stop them" in output
    assert version(database) == "9001"
    transact(database, ForgetNode("old:1"), writes=True)
    code, output = Upgrading(tmp_path, following, database, "--contract").end()
    assert code == 0, output
    assert version(database) == "9002"


def status_of(tmp_path, database, environment=None):
    done = run_cli(
        "db", "status", "--database", database, "--data-dir", str(tmp_path / "data"), "--json",
        check=False, environment=environment,
    )  # fmt: skip
    return done.returncode, done.stdout or done.stderr


def test_the_exit_codes_of_db_status(tmp_path, database, following):
    following.add("9001", "op.create_table('added', sa.Column('a', sa.Integer))")
    following.add("9002", "op.drop_table('added')", kind="contract", more="oldest_code = '9001'")
    new = following.environment
    assert status_of(tmp_path, database)[0] == 0
    code, output = status_of(tmp_path, database, new)
    assert code == 3
    assert '"migration": "9001"' in output
    assert Upgrading(tmp_path, following, database).end()[0] == 0
    assert status_of(tmp_path, database)[0] == 0
    code, output = status_of(tmp_path, database, new)
    assert code == 4
    assert '"kind": "contract"' in output
    assert Upgrading(tmp_path, following, database, "--contract").end()[0] == 0
    assert status_of(tmp_path, database, new)[0] == 0
    code, output = status_of(tmp_path, database)
    assert code == 1
    assert "only code of schema 9001 or newer may use it" in output
