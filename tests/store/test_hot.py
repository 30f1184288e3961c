"""Hot statements: the rows, counts and errors of SQLAlchemy, without its work on SQLite."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import bindparam, delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from sendback.store.access.accounts import AddAccount
from sendback.store.engine.changes import UNWATCHED
from sendback.store.engine.column_types import InvalidTextError
from sendback.store.engine.dialects import failure_of, open_engine
from sendback.store.engine.hot import HotStatement
from sendback.store.engine.store import prepare_schema
from sendback.store.engine.tables import accounts, metadata, processing, remembered_calls
from tests.conftest import NOW
from tests.partners.postgresql import database_url

CALLS = remembered_calls.c
ADD = HotStatement(insert(remembered_calls))
FIND = HotStatement(
    select(CALLS.invocation_id, CALLS.message_id)
    .where(CALLS.invocation_id.in_(bindparam("ids", expanding=True)), CALLS.access_key == "AKIA1")
    .order_by(CALLS.invocation_id)
)
RENAME = HotStatement(
    update(remembered_calls)
    .where(CALLS.invocation_id == bindparam("old"))
    .values(message_id=bindparam("new"))
)
DELETE = HotStatement(
    delete(remembered_calls)
    .where(CALLS.invocation_id == bindparam("which"))
    .returning(CALLS.message_id, CALLS.created_at)
)


def call(name: str, message_id: str = "m") -> dict[str, object]:
    return {
        "invocation_id": name,
        "access_key": "AKIA1",
        "body_hash": "hash",
        "message_id": message_id,
        "created_at": 7,
    }


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    url = database_url(tmp_path_factory.mktemp("hot"))
    prepare_schema(url)
    instance = open_engine(url, writes=True)
    yield instance
    instance.dispose()


@pytest.fixture
def connection(engine):
    with engine.connect() as open_one, open_one.begin() as transaction:
        yield open_one
        transaction.rollback()


def test_rows_have_the_columns_as_attributes(connection):
    ADD.run_all(connection, [call("b", "2"), call("a", "1")])
    first, second = FIND.rows(connection, {"ids": ["a", "b"]})
    assert (first.invocation_id, first.message_id) == ("a", "1")
    assert (second.invocation_id, second.message_id) == ("b", "2")


@given(st.lists(st.sampled_from([f"call {n}" for n in range(40)]), max_size=40))
def test_a_list_finds_what_sqlalchemy_finds(engine, wanted):
    with engine.connect() as connection, connection.begin() as transaction:
        ADD.run_all(connection, [call(f"call {n}") for n in range(0, 40, 2)])
        query = select(CALLS.invocation_id).where(CALLS.invocation_id.in_(wanted))
        expected = sorted(connection.execute(query).scalars())
        found = [row.invocation_id for row in FIND.rows(connection, {"ids": wanted})]
        transaction.rollback()
    assert found == expected


def test_a_change_returns_how_many_rows_it_changed(connection):
    ADD.run_all(connection, [call("a")])
    assert RENAME.run(connection, {"old": "a", "new": "n"}) == 1
    assert RENAME.run(connection, {"old": "unknown", "new": "n"}) == 0
    assert FIND.rows(connection, {"ids": ["a"]})[0].message_id == "n"


def test_returning(connection):
    ADD.run_all(connection, [call("a", "1")])
    (row,) = DELETE.rows(connection, {"which": "a"})
    assert (row.message_id, row.created_at) == ("1", 7)
    assert not FIND.rows(connection, {"ids": ["a"]})


def test_a_transaction_that_fails_leaves_nothing(engine):
    with pytest.raises(IntegrityError), engine.begin() as connection:
        ADD.run_all(connection, [call("a"), call("a")])
    with engine.begin() as connection:
        assert not FIND.rows(connection, {"ids": ["a"]})


def test_a_statement_begins_a_transaction(engine):
    with engine.connect() as connection:
        ADD.run_all(connection, [call("a")])
        assert connection.in_transaction()
        connection.rollback()
        assert not FIND.rows(connection, {"ids": ["a"]})


def test_an_error_has_no_parameters(connection):
    with pytest.raises(IntegrityError) as caught:
        ADD.run_all(connection, [call("a secret"), call("a secret")])
    if connection.dialect.name == "sqlite":
        assert "INSERT INTO remembered_calls" in str(caught.value)
        assert "a secret" not in str(caught.value)


def test_a_missing_table_is_no_unavailable_database(engine):
    statement = HotStatement(select(CALLS.message_id))
    with engine.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql("DROP TABLE remembered_calls")
        with pytest.raises((OperationalError, ProgrammingError)) as caught:
            statement.rows(connection, {})
        transaction.rollback()
    assert failure_of(caught.value, engine) is None


def test_a_text_with_nul_is_refused(connection):
    with pytest.raises(InvalidTextError):
        ADD.run_all(connection, [call("a\0b")])
    with pytest.raises(InvalidTextError):
        FIND.rows(connection, {"ids": ["a", "b\0"]})


def test_a_new_connection_is_used_after_a_disconnect(tmp_path):
    url = database_url(tmp_path)
    prepare_schema(url)
    engine = open_engine(url, writes=True)
    with engine.connect() as connection:
        ADD.run_all(connection, [call("a")])
        connection.commit()
        connection.invalidate()
        assert len(FIND.rows(connection, {"ids": ["a"]})) == 1
    engine.dispose()


@pytest.mark.parametrize(
    "table",
    [table for table in metadata.sorted_tables if table.name in {"accounts", "identities"}],
    ids=str,
)
def test_a_change_of_a_watched_table_is_refused(table):
    """The driver reports nothing to the recorder of changes."""
    for statement in (insert(table), update(table), delete(table)):
        with pytest.raises(ValueError, match=f" {table.name}"):
            HotStatement(statement)
    with pytest.raises(ValueError, match=table.name):
        HotStatement(text(f"DELETE FROM {table.name} WHERE account_id = :account"))


def test_an_unwatched_change_of_a_watched_table_is_not_refused(engine):
    statement = HotStatement(
        update(accounts)
        .where(accounts.c.account_id == bindparam("account"))
        .values(last_bounce_at=bindparam("now"))
        .execution_options(**UNWATCHED)
    )
    with engine.connect() as connection, connection.begin() as transaction:
        AddAccount("000000000000", NOW)(connection)
        assert statement.run(connection, {"account": "000000000000", "now": 5}) == 1
        transaction.rollback()


def test_a_table_of_mail_is_not_watched():
    HotStatement(insert(processing))


def test_a_text(connection):
    ADD.run_all(connection, [call("a", "1")])
    find = HotStatement(text("SELECT message_id FROM remembered_calls WHERE invocation_id = :name"))
    assert [row.message_id for row in find.rows(connection, {"name": "a"})] == ["1"]
