"""The generation: every change of what caches hold moves it, and nothing else does."""

import asyncio
import sqlite3
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import LargeBinary, String, event
from sqlalchemy.exc import OperationalError

from sendback.receipt.filters import FilterPolicy, IpFilter
from sendback.store.access.accounts import AddAccount, acquire_slot
from sendback.store.access.installation import CheckWrite
from sendback.store.access.keys import AccessKey, AddKey, DeleteKey, RecordUse, SetKeyDisabled
from sendback.store.access.users import AddUser, DeleteUser, NamedPolicy, PutUserPolicy
from sendback.store.engine.caching import StoreCache
from sendback.store.engine.changes import FRESH_SECONDS, ChangeRecorder, Changes, ReadGeneration
from sendback.store.engine.column_types import GuardedString, GuardedText
from sendback.store.engine.dialects import open_engine
from sendback.store.engine.errors import NotFoundError, StoreUnavailableError
from sendback.store.engine.store import Store, prepare_schema, transact
from sendback.store.engine.tables import metadata
from sendback.store.engine.transactions import TransactionThread
from sendback.store.identities.checks import CheckKind, IdentityCheck, RecordCheck, ask_check
from sendback.store.identities.identities import (
    DeleteIdentity,
    Identity,
    IdentityKind,
    PutIdentity,
    VerificationStatus,
)
from sendback.store.rules.filters import AddFilter, DeleteFilter
from sendback.store.rules.rule_sets import ActivateRuleSet, PutRuleSet
from tests.conftest import NOW
from tests.partners.postgresql import database_url

ACCOUNT = "000000000000"
DOMAIN = "example.com"
BLOCK = IpFilter("f", FilterPolicy.BLOCK, "192.0.2.0/24")
IDENTITY = Identity(ACCOUNT, DOMAIN, IdentityKind.DOMAIN, VerificationStatus.SUCCESS, "token", NOW)
KEY = AccessKey("AKIA1", ACCOUNT, "root", b"sealed", NOW)


@pytest.fixture
def url(tmp_path):
    database = database_url(tmp_path)
    prepare_schema(database)
    return database


@pytest.fixture
def store(url, tmp_path):
    instance = Store(url, tmp_path)
    yield instance
    instance.close()


class Stepping:
    """A timer that the test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def pass_freshness(self):
        self.now += FRESH_SECONDS


class Process:
    """The changes that another process would see, on a timer of the test."""

    def __init__(self, url):
        self.timer = Stepping()
        self.engine = open_engine(url, writes=False)
        self.statements = []
        event.listen(self.engine, "before_cursor_execute", self._note)
        self.thread = TransactionThread(self.engine, "test-reader")
        recorder = ChangeRecorder(open_engine(url, writes=True))
        self.changes = Changes(recorder, self.thread.run, self.timer)

    def _note(self, _connection, _cursor, statement, *_):
        if not statement.startswith("BEGIN"):
            self.statements.append(statement)

    async def count(self):
        """The count, once all that others have committed is noticed."""
        self.timer.pass_freshness()
        await self.changes.refresh()
        return self.changes.count


@pytest.fixture
def other(url):
    process = Process(url)
    yield process
    process.thread.close()


async def settle(store):
    """An account with an identity, a filter, a key and a rule set."""
    for unit in (
        AddAccount(ACCOUNT, NOW),
        PutIdentity(IDENTITY),
        AddFilter(ACCOUNT, BLOCK, 10),
        AddKey(KEY),
        AddUser(ACCOUNT, "ann", NOW),
        PutUserPolicy(ACCOUNT, "ann", NamedPolicy("p", "{}")),
        PutRuleSet(ACCOUNT, "main", NOW, ()),
    ):
        await store.write(unit)


CHANGES = [
    AddAccount("000000000001", NOW),
    PutIdentity(
        Identity(ACCOUNT, "b.example", IdentityKind.DOMAIN, VerificationStatus.PENDING, "t", NOW)
    ),
    DeleteIdentity(ACCOUNT, DOMAIN),
    AddFilter(ACCOUNT, IpFilter("g", FilterPolicy.BLOCK, "192.0.2.1"), 10),
    DeleteFilter(ACCOUNT, "f"),
    DeleteKey(ACCOUNT, "AKIA1"),
    SetKeyDisabled(ACCOUNT, "AKIA1", NOW),
    PutUserPolicy(ACCOUNT, "ann", NamedPolicy("p", '{"Version": "2012-10-17"}')),
    DeleteUser(ACCOUNT, "ann"),
    PutRuleSet(ACCOUNT, "second", NOW, ()),
    ActivateRuleSet(ACCOUNT, "main"),
    lambda connection: connection.exec_driver_sql("update  identities SET status = 'Failed'"),
    lambda connection: connection.exec_driver_sql('INSERT INTO "targets" VALUES '
                                                  f"('{ACCOUNT}', 'bucket', 'b', 'c')"),
    lambda connection: connection.exec_driver_sql(
        "WITH old AS (SELECT name FROM ip_filters) "
        "DELETE FROM ip_filters WHERE name IN (SELECT name FROM old)"
    ),
    lambda connection: connection.exec_driver_sql(
        "UPDATE accounts SET name = 'x' RETURNING account_id"
    ).all(),
]  # fmt: skip


@pytest.mark.parametrize("unit", CHANGES, ids=lambda unit: type(unit).__name__)
def test_a_change_is_noticed_by_its_process_and_by_another(store, other, unit):
    async def story():
        await settle(store)
        before, before_elsewhere = store.changes.count, await other.count()
        await store.write(unit)
        assert store.changes.count != before
        assert await other.count() != before_elsewhere

    asyncio.run(story())


def check(status, due_at=NOW):
    return IdentityCheck(ACCOUNT, DOMAIN, CheckKind.DOMAIN, status, NOW, due_at)


def recorded(new):
    return RecordCheck(new, lambda _: new)


NO_CHANGES = [
    CheckWrite(NOW),
    RecordUse({"AKIA1": NOW}),
    lambda connection: acquire_slot(connection, ACCOUNT, NOW, timedelta(0)),
    recorded(check(VerificationStatus.SUCCESS, NOW + timedelta(days=1))),
    DeleteFilter(ACCOUNT, "no such filter"),
    DeleteKey(ACCOUNT, "no such key"),
    AddAccount(ACCOUNT, NOW),
    lambda connection: connection.exec_driver_sql("SELECT 'UPDATE identities'").all(),
]


@pytest.mark.parametrize("unit", NO_CHANGES, ids=lambda unit: type(unit).__name__)
def test_what_no_cache_holds_is_no_change(store, other, unit):
    async def story():
        await settle(store)
        await store.write(
            lambda connection: ask_check(connection, check(VerificationStatus.SUCCESS))
        )
        before, before_elsewhere = store.changes.count, await other.count()
        await store.write(unit)
        assert store.changes.count == before
        assert await other.count() == before_elsewhere

    asyncio.run(story())


def test_a_check_with_another_result_is_a_change(store, other):
    async def story():
        await settle(store)
        await store.write(
            lambda connection: ask_check(connection, check(VerificationStatus.SUCCESS))
        )
        before = await other.count()
        await store.write(recorded(check(VerificationStatus.FAILED)))
        assert await other.count() != before

    asyncio.run(story())


def test_a_new_table_is_watched(store):
    """What is not named as changing with mail moves the count."""

    async def story():
        await store.write(
            lambda connection: connection.exec_driver_sql("CREATE TABLE new (a INTEGER)")
        )
        before = store.changes.count
        await store.write(
            lambda connection: connection.exec_driver_sql("INSERT INTO new VALUES (1)")
        )
        assert store.changes.count != before

    asyncio.run(story())


def test_the_count_has_moved_when_the_caller_continues(store):
    async def story():
        await settle(store)
        counts = [store.changes.count]
        for number in range(50):
            entry = IpFilter(f"f{number}", FilterPolicy.BLOCK, "192.0.2.1")
            await store.write(AddFilter(ACCOUNT, entry, 100))
            counts.append(store.changes.count)
        assert len(set(counts)) == len(counts)

    asyncio.run(story())


def test_a_transaction_that_failed_counts_as_a_change_here_and_not_elsewhere(store, other):
    async def story():
        await settle(store)
        before, before_elsewhere = store.changes.count, await other.count()

        def fail(connection):
            DeleteFilter(ACCOUNT, "f")(connection)
            raise NotFoundError("x", "y")

        with pytest.raises(NotFoundError):
            await store.write(fail)
        assert store.changes.count != before
        assert await other.count() == before_elsewhere

    asyncio.run(story())


@pytest.mark.sqlite("it raises an error of SQLite")
def test_a_commit_with_an_unknown_result_counts_as_a_change(url):
    class Broken(sqlite3.OperationalError):
        sqlite_errorcode = sqlite3.SQLITE_IOERR

    async def story():
        engine = open_engine(url, writes=True)
        recorder = ChangeRecorder(engine)
        changes = Changes(recorder, None)
        thread = TransactionThread(engine, "test", changes.transaction_ended)
        await thread.run(AddAccount(ACCOUNT, NOW))
        before = changes.count

        def fail(_connection):
            raise OperationalError("COMMIT", {}, Broken("disk I/O error"))

        event.listen(engine, "commit", fail)
        with pytest.raises(StoreUnavailableError, match="disk I/O error"):
            await thread.run(AddAccount("000000000001", NOW))
        assert changes.count != before
        thread.close()

    asyncio.run(story())


def test_a_change_by_a_command_is_noticed(url, store, other):
    async def story():
        await settle(store)
        before = await other.count()
        transact(url, DeleteFilter(ACCOUNT, "f"), writes=True)
        assert await other.count() != before

    asyncio.run(story())


@pytest.mark.sqlite("PostgreSQL has no number of commits; reading the row is as cheap")
def test_an_idle_database_costs_one_pragma_in_half_a_second(store, other):
    async def story():
        await settle(store)
        await other.count()
        other.statements.clear()
        for _ in range(5):
            await other.changes.refresh()
        assert other.statements == []
        await other.count()
        assert other.statements == ["PRAGMA data_version"]

    asyncio.run(story())


@pytest.mark.sqlite("PostgreSQL has no number of commits; reading the row is as cheap")
def test_refreshes_at_the_same_time_share_a_read(url):
    engine = open_engine(url, writes=False)
    with engine.connect() as connection:
        statements = []
        event.listen(
            connection, "before_cursor_execute", lambda *given: statements.append(given[2])
        )
        found = ReadGeneration.run_together(connection, [ReadGeneration()] * 100)
    engine.dispose()
    assert len(found) == 100
    assert statements.count("PRAGMA data_version") == 1


def test_a_change_is_noticed_by_a_fresh_connection(store, other):
    """The pragma's numbers of two connections cannot be compared."""

    async def story():
        await settle(store)
        before = await other.count()
        await store.write(DeleteFilter(ACCOUNT, "f"))

        def lose(_connection):
            raise OSError

        with suppress(OSError):
            await other.thread.run(lose)
        other.engine.dispose()
        assert await other.count() != before

    asyncio.run(story())


def test_a_read_whose_group_is_repeated_loses_no_change(store, other):
    """The unit beside it fails, so both run again: the second run must return the same."""

    async def story():
        await settle(store)
        before = await other.count()
        await store.write(DeleteFilter(ACCOUNT, "f"))
        other.timer.pass_freshness()

        def fail(_connection):
            raise NotFoundError("x", "y")

        results = await asyncio.gather(
            other.changes.refresh(), other.thread.run(fail), return_exceptions=True
        )
        assert isinstance(results[1], NotFoundError)
        assert other.changes.count != before

    asyncio.run(story())


def test_a_deleted_generation_does_not_return(store, other):
    async def story():
        await settle(store)
        seen = set()
        for number in range(20):
            await store.write(
                lambda connection: connection.exec_driver_sql("DELETE FROM generations")
            )
            entry = IpFilter(f"n{number}", FilterPolicy.BLOCK, "192.0.2.1")
            await store.write(AddFilter(ACCOUNT, entry, 100))
            seen.add(await store.read(ReadGeneration()))
        assert len(seen) == 20

    asyncio.run(story())


def test_every_table_is_watched_or_changes_with_mail(store):
    """A new table is watched; one that every mail writes has to be named in `changes`."""

    async def story():
        moved = set()
        for table in sorted(metadata.tables):
            before = store.changes.count
            columns = ", ".join(column.name for column in metadata.tables[table].columns)
            values = ", ".join(
                "'1'"
                if isinstance(column.type, String | GuardedString | GuardedText | LargeBinary)
                else "1"
                for column in metadata.tables[table].columns
            )
            statement = f"INSERT INTO {table} ({columns}) VALUES ({values})"

            def insert(connection, statement=statement):
                unchecked = "SET LOCAL session_replication_role = replica"
                if connection.dialect.name == "sqlite":
                    unchecked = "PRAGMA defer_foreign_keys = ON"
                connection.exec_driver_sql(unchecked)
                connection.exec_driver_sql(statement)
                connection.exec_driver_sql(statement.replace("1", "2"))
                raise NotFoundError("x", "y")  # leave no row

            with pytest.raises(NotFoundError):
                await store.write(insert)
            if store.changes.count != before:
                moved.add(table)
        assert moved == {
            "access_keys", "accounts", "dkim_keys", "faults", "identities", "identity_checks",
            "identity_policies", "identity_settings", "ip_filters", "rule_sets", "targets",
            "user_policies", "users", "verification_templates",
        }  # fmt: skip

    asyncio.run(story())


# --- the cache --------------------------------------------------------------------------------


class Scripted:
    """A generation and a read of it that the test controls, in place of a database."""

    def __init__(self):
        self.timer = Stepping()
        self.generation = 0
        self.is_available = True
        self.changes = Changes(self, self.read, self.timer)

    def take(self):
        return True

    async def read(self, _unit):
        if not self.is_available:
            raise StoreUnavailableError("locked")
        return self.generation


def test_a_value_read_before_a_change_is_not_cached():
    async def story():
        scripted = Scripted()
        cache = StoreCache(scripted.changes, 10)

        async def find_slowly():
            scripted.changes.transaction_ended()  # the change is committed meanwhile
            return "before"

        async def find():
            return "after"

        assert await cache.get("k", find_slowly) == "before"
        assert cache.known("k") is None
        assert await cache.get("k", find) == "after"
        assert cache.known("k") == "after"

    asyncio.run(story())


def test_a_store_that_fails_makes_the_cache_unusable():
    async def story():
        scripted = Scripted()
        cache = StoreCache(scripted.changes, 10)

        async def find():
            return "value"

        assert await cache.get("k", find) == "value"
        scripted.is_available = False
        assert cache.known("k") == "value"
        scripted.timer.pass_freshness()
        assert cache.known("k") is None
        with pytest.raises(StoreUnavailableError):
            await cache.get("k", find)
        scripted.is_available = True
        assert await cache.get("k", find) == "value"

    asyncio.run(story())


def test_what_is_not_found_is_not_cached_and_the_size_is_bounded():
    async def story():
        cache = StoreCache(Scripted().changes, 5)

        async def nothing():
            return None

        async def something():
            return 1

        assert await cache.get("none", nothing) is None
        assert await cache.get("none", something) == 1
        for number in range(20):
            await cache.get(number, something)
        assert sum(cache.known(number) is not None for number in range(20)) == 5

    asyncio.run(story())


class Story:
    """A value in a store that changes here and elsewhere, and a cache of it."""

    def __init__(self):
        self.scripted = Scripted()
        self.cache = StoreCache(self.scripted.changes, 10)
        self.value = 0
        self.changed_here = 0
        self.changed_elsewhere = [(-FRESH_SECONDS, 0)]

    async def here(self):
        self._change()
        self.changed_here = self.value
        self.scripted.changes.transaction_ended()

    async def elsewhere(self):
        self._change()
        self.changed_elsewhere.append((self.scripted.timer.now, self.value))

    async def time(self):
        self.scripted.timer.now += FRESH_SECONDS / 3

    async def read(self):
        self._check(await self.cache.get("k", self._find))

    async def known(self):
        self._check(self.cache.known("k") or (self.value,))

    async def change_here_while_reading(self):
        await self.cache.get("k", lambda: self._find_while(self.here))

    async def change_elsewhere_while_reading(self):
        await self.cache.get("k", lambda: self._find_while(self.elsewhere))

    def _change(self):
        self.value += 1
        self.scripted.generation += 1

    async def _find(self):
        return (self.value,)

    async def _find_while(self, change):
        found = (self.value,)
        await change()
        return found

    def _check(self, found):
        now = self.scripted.timer.now
        old = [number for at, number in self.changed_elsewhere if now - at >= FRESH_SECONDS]
        assert found[0] >= max(self.changed_here, *old)


STEPS = st.sampled_from(
    [
        Story.here,
        Story.elsewhere,
        Story.time,
        Story.read,
        Story.known,
        Story.change_here_while_reading,
        Story.change_elsewhere_while_reading,
    ]
)


@given(st.lists(STEPS, max_size=40))
def test_a_cached_value_is_never_older_than_the_promise(steps):
    """In any order of events: own changes at once, those of others within the time."""

    async def play():
        story = Story()
        for step in steps:
            await step(story)

    asyncio.run(play())
