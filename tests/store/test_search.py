"""The searches of the console find their rows by indexes."""

import pytest
from sqlalchemy import event, insert

from sendback.store.engine.tables import ANSWERS, messages
from sendback.store.messages.search import FindMailRows
from sendback.store.outbox.control import ListOutbox, Selection
from tests.partners.postgresql import scratch_connection
from tests.store.test_sweeping import a_message, check_plan, finish_outbox

ENVELOPE = (
    '{"client":["127.0.0.1","x",null],"from":["a","b.example"],"to":[{"at":["c","example.com"]}]}'
)


@pytest.fixture
def connection():
    with scratch_connection(checks_keys=True) as found:
        found.exec_driver_sql("INSERT INTO accounts VALUES ('000000000000', 0, 0, NULL, NULL)")
        yield found


@pytest.mark.parametrize(
    "unit",
    [
        FindMailRows("000000000000", ("m000001", "m000002")),
        ListOutbox(Selection("000000000000", original_message_id="m000001"), 20),
    ],
    ids=["rows", "bounces of a message"],
)
def test_by_an_index(connection, unit):

    rows = [a_message(number, envelope=ENVELOPE) for number in range(500)]
    connection.execute(insert(messages), rows)
    finish_outbox(connection)
    statements = []

    @event.listens_for(connection, "before_cursor_execute")
    def note(conn, cursor, statement, parameters, context, executemany):
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    unit(connection)
    event.remove(connection, "before_cursor_execute", note)
    assert any(ANSWERS in statement for statement, _ in statements)
    for statement, parameters in statements:
        check_plan_of_rows(connection, statement, parameters)


def check_plan_of_rows(connection, statement, parameters):
    """Sorting the few rows that were found is allowed."""
    if connection.dialect.name == "postgresql":
        check_plan(connection, statement, parameters)
        return
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    for row in plan:
        assert not row.detail.startswith("SCAN outbox") or "INDEX" in row.detail, row.detail
        assert row.detail != "SCAN messages", statement
