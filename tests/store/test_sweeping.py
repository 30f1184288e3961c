"""Sweeps run in steps: each is bounded, continues after the last one, and uses an index."""

import re
from datetime import timedelta
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, event, func, insert, select

from sendback.clock import to_milliseconds
from sendback.service import housekeeping
from sendback.store.access.audit import ForgetAuditLines
from sendback.store.access.keys import ForgetExpiredKeys
from sendback.store.access.sessions import ForgetSessions
from sendback.store.bouncing.calls import CallKey, ForgetCalls, claim_calls
from sendback.store.engine import sweeping
from sendback.store.engine.sweeping import MAX_BELONGINGS, MAX_OCTETS, MAX_ROWS
from sendback.store.engine.tables import (
    access_keys,
    attempts,
    audit_lines,
    console_sessions,
    counters,
    destinations,
    dkim_keys,
    messages,
    mta_sts_policies,
    outbox,
    outbox_contents,
    processing,
    remembered_calls,
    rule_set_versions,
    rule_sets,
    steps,
)
from sendback.store.events.counters import MINUTE, ForgetCounters
from sendback.store.identities.dkim_keys import ForgetRetiredKeys
from sendback.store.messages.messages import ExpireContent, ForgetMessages
from sendback.store.outbox.destinations import ForgetDestinations
from sendback.store.outbox.mta_sts import ForgetStsPolicies
from sendback.store.outbox.queue import ExpireWaiting, ForgetFinished, add_to_outbox
from sendback.store.outbox.rows import OutboxState
from sendback.store.rules.processing import ForgetProcessed
from sendback.store.rules.rule_sets import ForgetVersions
from tests.conftest import NOW
from tests.partners.postgresql import scratch_connection
from tests.partners.queue import ACCOUNT, a_bounce

OLD = NOW - timedelta(days=20)
BEFORE = NOW - timedelta(days=14)
MANY = 2 * MAX_ROWS + 7
_SIZE = [MANY]  # how many rows the `fill_…` functions insert


@pytest.fixture
def connection():
    with scratch_connection(checks_keys=True) as found:
        found.exec_driver_sql(f"INSERT INTO accounts VALUES ('{ACCOUNT}', 0, 0, NULL, NULL)")
        yield found


def count(connection, table, *where):
    return connection.execute(select(func.count()).select_from(table).where(*where)).scalar_one()


def changes(connection):
    """Return how many rows were changed in the transaction, including by cascades."""
    if connection.dialect.name == "sqlite":
        return connection.connection.dbapi_connection.total_changes
    counted = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_user_tables"
    return int(connection.exec_driver_sql(counted).scalar_one())


def sweep(connection, first, most=MAX_ROWS):
    """Run all steps, each with at most `most` changes; return how many steps and swept rows."""
    from dataclasses import replace

    step, steps_done, swept_rows = first, 0, 0
    while True:
        before = changes(connection)
        swept = step(connection)
        assert changes(connection) - before <= most
        steps_done, swept_rows = steps_done + 1, swept_rows + swept.count
        assert steps_done < 10_000
        if swept.after is None:
            return steps_done, swept_rows
        step = replace(step, after=swept.after)


# --- the rows of each sweep -----------------------------------------------------------------------


def milliseconds(number, moment=OLD):
    return to_milliseconds(moment) + number


def a_message(number, moment=OLD, body=b"x" * 100, blob=None, **changes):
    at = milliseconds(number // 3, moment)  # some share a date
    return {
        "message_id": f"m{number:06}",
        "account_id": ACCOUNT,
        "received_at": at,
        "expires_at": at + 86_400_000,
        "envelope": "{}",
        "size": len(body or b"") + 10,
        "header": b"Subject: x",
        "body": None if blob else body,
        "blob": blob,
        **changes,
    }


def a_processing(number, state="done", moment=OLD, **changes):
    message_id = f"m{number:06}"
    return {
        "processing_id": f"{message_id}/{ACCOUNT}",
        "message_id": message_id,
        "account_id": ACCOUNT,
        "version": "v",
        "rule_set": "main",
        "created_at": milliseconds(number // 3, moment),
        "state": state,
        "due_at": 0,
        "lease_token": 0,
        **changes,
    }


def fill_messages(connection):
    connection.execute(insert(messages), [a_message(number) for number in range(_SIZE[0])])


def fill_processing(connection):
    connection.execute(insert(processing), [a_processing(number) for number in range(_SIZE[0])])


def fill_outbox(connection):
    rows = [
        a_bounce(f"b{n:06}", f"a@d{n % 50}.example", OLD + timedelta(seconds=n // 3), content=b"x")
        for n in range(_SIZE[0])
    ]
    add_to_outbox(connection, rows)


def finish_outbox(connection):
    fill_outbox(connection)
    connection.exec_driver_sql("UPDATE outbox SET state = 'delivered'")
    values = {
        "number": 1, "started_at": 0, "milliseconds": 1, "outcome": "delivered", "peer": "p",
        "reply": "x",
    }  # fmt: skip
    rows = [{"message_id": f"b{number:06}", **values} for number in range(_SIZE[0])]
    connection.execute(insert(attempts), rows)


def fill_destinations(connection):
    rows = [{"domain": f"d{n:06}.example", "failures": 0, "paused": 0} for n in range(_SIZE[0])]
    connection.execute(insert(destinations), rows)


def fill_policies(connection):
    rows = [
        {
            "domain": f"d{n}.example", "policy_id": "1", "policy": "x", "fetched_at": 0,
            "expires_at": milliseconds(n),
        }
        for n in range(_SIZE[0])
    ]  # fmt: skip
    connection.execute(insert(mta_sts_policies), rows)


def fill_versions(connection):
    rows = [{"version": f"v{n:06}", "rules": "x" * 5000, "kept_at": 1} for n in range(_SIZE[0])]
    connection.execute(insert(rule_set_versions), rows)


def fill_calls(connection):
    for n in range(_SIZE[0]):
        claim_calls(connection, {CallKey("key", f"call{n}", "hash"): "m"}, OLD)


def fill_keys(connection):
    rows = [
        {
            "access_key": f"ASIA{n}", "account_id": ACCOUNT, "user_name": "root",
            "sealed_secret": b"x", "created_at": 0, "expires_at": milliseconds(n),
        }
        for n in range(_SIZE[0])
    ]  # fmt: skip
    connection.execute(insert(access_keys), rows)


def fill_dkim(connection):
    rows = [
        {
            "account_id": ACCOUNT, "domain": "example.com", "selector": f"s{n}",
            "algorithm": "rsa", "state": "retired", "public_key": "x", "created_at": 0,
            "retired_at": milliseconds(n),
        }
        for n in range(_SIZE[0])
    ]  # fmt: skip
    connection.execute(insert(dkim_keys), rows)


def fill_sessions(connection):
    rows = [
        {
            "session_hash": f"h{n}", "account_id": ACCOUNT, "user_name": "root", "access_key": "k",
            "created_at": 0, "used_at": 0, "expires_at": milliseconds(n),
        }
        for n in range(_SIZE[0])
    ]  # fmt: skip
    connection.execute(insert(console_sessions), rows)


def fill_audit(connection):
    rows = [
        {
            "line_id": f"l{n}", "account_id": ACCOUNT, "user_name": "root", "client": "c",
            "path": "/", "text": "x", "created_at": milliseconds(n),
        }
        for n in range(_SIZE[0])
    ]  # fmt: skip
    connection.execute(insert(audit_lines), rows)


def fill_counters(connection):
    rows = [
        {
            "account_id": ACCOUNT, "width": MINUTE, "begins_at": milliseconds(n), "kind": "k",
            "detail": "d", "number": 1,
        }
        for n in range(_SIZE[0])
    ]  # fmt: skip
    connection.execute(insert(counters), rows)


# (the function that fills the table, the first step, the table, rows deleted with each, rows kept)
SWEEPS = {
    "content": (fill_messages, ExpireContent(now=NOW, held_since=BEFORE), messages, 0, MANY),
    "messages": (fill_messages, ForgetMessages(now=NOW, before=BEFORE), messages, 0, 0),
    "waiting": (fill_outbox, ExpireWaiting(now=NOW), outbox, 0, MANY),
    "finished": (finish_outbox, ForgetFinished(before=BEFORE), outbox, 2, 0),
    "destinations": (fill_destinations, ForgetDestinations(before=BEFORE), destinations, 0, 0),
    "policies": (fill_policies, ForgetStsPolicies(before=NOW), mta_sts_policies, 0, 0),
    "processing": (fill_processing, ForgetProcessed(before=BEFORE), processing, 0, 0),
    "versions": (fill_versions, ForgetVersions(before=BEFORE), rule_set_versions, 0, 0),
    "calls": (fill_calls, ForgetCalls(before=BEFORE), remembered_calls, 0, 0),
    "keys": (fill_keys, ForgetExpiredKeys(before=BEFORE), access_keys, 0, 0),
    "dkim": (fill_dkim, ForgetRetiredKeys(before=BEFORE), dkim_keys, 0, 0),
    "sessions": (fill_sessions, ForgetSessions(before=BEFORE), console_sessions, 0, 0),
    "audit": (fill_audit, ForgetAuditLines(before=BEFORE), audit_lines, 0, 0),
    "counters": (fill_counters, ForgetCounters(width=MINUTE, before=BEFORE), counters, 0, 0),
}


def test_every_sweep_is_tested():
    tested = {type(entry[1]) for entry in SWEEPS.values()}
    assert tested == {type(step) for step in housekeeping.sweep_steps(NOW, BEFORE)}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_complete_in_bounded_steps(connection, name):
    fill, first, table, belongings, stay = SWEEPS[name]
    fill(connection)
    steps_done, swept = sweep(connection, first, MAX_ROWS * (1 + belongings))
    assert swept == MANY
    assert count(connection, table) == stay
    assert steps_done >= 3
    assert sweep(connection, first) == (1, 0) or name == "waiting"


@pytest.mark.parametrize("name", SWEEPS)
def test_no_step_scans_a_whole_table(connection, name):
    """By the query plan, each statement of each step finds its rows by an index."""
    fill, first, _, _, _ = SWEEPS[name]
    fill(connection)
    statements = []

    @event.listens_for(connection, "before_cursor_execute")
    def note(conn, cursor, statement, parameters, context, executemany):
        if not statement.startswith(("EXPLAIN", "SET")):
            statements.append((statement, parameters[0] if executemany else parameters))

    sweep(connection, first, MAX_ROWS * 3)
    assert len(statements) >= 3
    for statement, parameters in statements:
        check_plan(connection, statement, parameters)


def check_plan(connection, statement, parameters):
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # for small tables
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
        assert not any("Seq Scan" in line for line in plan), (statement, plan)
        return
    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    for row in plan:
        scan = re.match(r"SCAN (\w+)(?! USING)(?: VIRTUAL)?$", row.detail)
        # (A subquery that SQLAlchemy names has no more rows than a step.)
        assert scan is None or scan[1].startswith(("CONSTANT", "SUBQUERY", "anon_")), statement
        # Rows of the same millisecond are sorted by their keys, never all rows.
        assert "TEMP B-TREE FOR ORDER BY" not in row.detail, statement


def work(connection, name, size, *, same_date):
    """Return how many thousand instructions of SQLite's virtual machine the whole sweep takes."""
    fill, first, table, _, _ = SWEEPS[name]
    _SIZE[0] = size
    try:
        fill(connection)
    finally:
        _SIZE[0] = MANY
    if same_date:
        for column in DATES.get(name, ()):
            connection.exec_driver_sql(f"UPDATE {table.name} SET {column} = 1")
    counted = []
    driver = connection.connection.dbapi_connection
    driver.set_progress_handler(lambda: counted.append(1), 1000)
    sweep(connection, first, MAX_ROWS * 3)
    driver.set_progress_handler(None, 0)
    connection.execute(delete(table))
    return len(counted)


DATES = {
    "content": ["expires_at"],
    "messages": ["received_at", "expires_at"],
    "waiting": ["expires_at"],
    "finished": ["created_at"],
    "policies": ["expires_at"],
    "processing": ["created_at"],
    "calls": ["created_at"],
    "keys": ["expires_at"],
    "dkim": ["retired_at"],
    "sessions": ["expires_at"],
    "audit": ["created_at"],
}


@pytest.mark.sqlite("it counts instructions of SQLite's virtual machine")
@pytest.mark.parametrize("same_date", [False, True])
@pytest.mark.parametrize("name", SWEEPS)
def test_the_work_of_a_sweep_is_linear(connection, name, same_date):
    """Also when all rows have the same date."""
    once = work(connection, name, 3000, same_date=same_date)
    twice = work(connection, name, 6000, same_date=same_date)
    assert once >= 10
    assert twice <= 2.3 * once, (once, twice)


@pytest.mark.fuzz
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(0, 3)), max_size=40),
    st.integers(1, 6),
)
def test_a_sweep_deletes_the_finished_rows_and_no_others(rows, most):
    """For any shared dates, any rows that stay between others, and any end of a step."""
    with patch.object(sweeping, "MAX_ROWS", most), patch.object(sweeping, "MAX_OCTETS", 4):
        with scratch_connection() as connection:
            for number, (date, stays, octets) in enumerate(rows):
                moment = OLD + timedelta(milliseconds=date)
                bounce = a_bounce(f"b{number:02}", "a@x.example", moment, content=b"x" * octets)
                add_to_outbox(connection, [bounce])
                if not stays:
                    sql = f"UPDATE outbox SET state = 'failed' WHERE message_id = 'b{number:02}'"
                    connection.exec_driver_sql(sql)
            _, swept = sweep(connection, ForgetFinished(before=BEFORE), 1000)
            left = connection.execute(select(outbox.c.message_id)).scalars()
            staying = [f"b{number:02}" for number, row in enumerate(rows) if row[1]]
            assert sorted(left) == staying
            assert swept == len(rows) - len(staying)


@pytest.mark.sqlite("it counts instructions of SQLite's virtual machine")
@pytest.mark.parametrize("every", [2, 3])
def test_the_work_is_linear_beside_rows_that_stay(connection, every):
    """All rows have the same date, and every second or third is held."""

    def cost(size):
        _SIZE[0] = size
        try:
            finish_outbox(connection)
        finally:
            _SIZE[0] = MANY
        connection.exec_driver_sql("UPDATE outbox SET created_at = 1")
        held = f"UPDATE outbox SET state = 'held' WHERE rowid % {every} = 0"
        connection.exec_driver_sql(held)
        counted = []
        driver = connection.connection.dbapi_connection
        driver.set_progress_handler(lambda: counted.append(1), 1000)
        sweep(connection, ForgetFinished(before=BEFORE), MAX_ROWS * 3)
        driver.set_progress_handler(None, 0)
        assert count(connection, outbox) == size // every
        connection.execute(delete(outbox))
        return len(counted)

    once, twice = cost(6000), cost(12000)
    assert twice <= 2.3 * once, (once, twice)


# --- rows that stay, and the size of steps --------------------------------------------------------


def states_of_content(connection):
    query = select(messages.c.message_id, messages.c.body.is_not(None)).order_by(
        messages.c.message_id
    )
    return [kept for _, kept in connection.execute(query)]


def test_content_is_kept_while_its_processing_is_queued_or_held(connection):
    """Queued: without limit. Held: until the history ends, so that a retry has the content."""
    recent = NOW - timedelta(days=3)
    moments = [OLD, recent, OLD, recent, OLD, recent]
    found = ["queued", "queued", "held", "held", "done", "dropped"]
    for number, (moment, state) in enumerate(zip(moments, found, strict=True)):
        connection.execute(insert(messages), a_message(number, moment))
        connection.execute(insert(processing), a_processing(number, state, moment))
    sweep(connection, ExpireContent(now=NOW, held_since=BEFORE))
    assert states_of_content(connection) == [True, True, False, True, False, False]
    sweep(connection, ForgetMessages(now=NOW, before=BEFORE))
    sweep(connection, ForgetProcessed(before=BEFORE))
    left = connection.execute(select(messages.c.message_id).order_by(messages.c.message_id))
    assert list(left.scalars()) == ["m000000", "m000001", "m000003", "m000005"]
    left = connection.execute(select(processing.c.message_id).order_by(processing.c.message_id))
    assert list(left.scalars()) == ["m000000", "m000001", "m000003", "m000005"]


def test_a_body_that_another_account_needs_is_kept(connection):
    connection.exec_driver_sql("INSERT INTO accounts VALUES ('111111111111', 0, 0, NULL, NULL)")
    for account in (ACCOUNT, "111111111111"):
        row = a_message(1, blob="big", account_id=account)
        connection.execute(insert(messages), row)
    row = {**a_processing(1, "queued"), "account_id": "111111111111"}
    row["processing_id"] = "m000001/111111111111"
    connection.execute(insert(processing), row)
    assert ExpireContent(now=NOW, held_since=BEFORE)(connection).blobs == ()
    connection.exec_driver_sql("UPDATE processing SET state = 'done'")
    assert ExpireContent(now=NOW, held_since=BEFORE)(connection).blobs == ("big",)


@pytest.mark.parametrize("needed", ["queued", "held"])
def test_rows_that_stay_are_read_once(connection, needed):
    """No step reads again the thousands of held messages that an earlier one has skipped."""
    fill_messages(connection)
    rows = [a_processing(number, needed, NOW - timedelta(days=1)) for number in range(MANY - 7)]
    connection.execute(insert(processing), rows)
    connection.exec_driver_sql(f"UPDATE messages SET received_at = {milliseconds(0, NOW)}")
    steps_done, swept = sweep(connection, ExpireContent(now=NOW, held_since=BEFORE))
    assert swept == 7
    assert steps_done == MANY // MAX_ROWS + 1


def test_large_bodies_make_small_steps(connection):
    body = b"x" * 250_000
    connection.execute(insert(messages), [a_message(n, body=body) for n in range(60)])
    most = MAX_OCTETS // len(body)
    steps_done, swept = sweep(connection, ExpireContent(now=NOW, held_since=BEFORE), most)
    assert swept == 60
    assert steps_done >= 60 // most
    # Records with content, which a short history deletes: their steps are bounded likewise.
    rows = [a_message(n, body=body, account_id=ACCOUNT) for n in range(100, 160)]
    connection.execute(insert(messages), rows)
    connection.exec_driver_sql("DELETE FROM messages WHERE body IS NULL")
    steps_done, swept = sweep(connection, ForgetMessages(now=NOW, before=BEFORE), most)
    assert swept == 60
    assert steps_done >= 60 // most


def test_large_bounces_and_many_attempts_make_small_steps(connection):
    rows = [a_bounce(f"b{n}", "a@x.example", OLD, content=b"x" * 300_000) for n in range(40)]
    add_to_outbox(connection, rows)
    connection.exec_driver_sql("UPDATE outbox SET state = 'failed'")
    steps_done, swept = sweep(connection, ForgetFinished(before=BEFORE))
    assert (steps_done >= 3, swept) == (True, 40)
    rows = [a_bounce(f"c{n}", "a@x.example", OLD) for n in range(20)]
    add_to_outbox(connection, rows)
    connection.exec_driver_sql("UPDATE outbox SET state = 'failed'")
    for n in range(20):
        values = {
            "message_id": f"c{n}", "started_at": 0, "milliseconds": 1, "outcome": "temporary",
            "peer": "p", "reply": "x",
        }  # fmt: skip
        connection.execute(insert(attempts), [{**values, "number": i} for i in range(500)])
    most = MAX_BELONGINGS + 2 * 20
    steps_done, swept = sweep(connection, ForgetFinished(before=BEFORE), most)
    assert (steps_done >= 5, swept) == (True, 20)
    assert count(connection, attempts) == count(connection, outbox_contents) == 0


def test_a_message_with_many_steps_makes_small_steps(connection):
    for n in range(12):
        connection.execute(insert(processing), a_processing(n))
        values = {
            "processing_id": a_processing(n)["processing_id"], "action_number": 0, "rule": "r",
            "action": "S3", "outcome": "done", "disposition": "CONTINUE", "attempts": 1,
            "first_at": 0, "last_at": 0, "due_at": 0, "milliseconds": 1, "result": "x",
        }  # fmt: skip
        connection.execute(insert(steps), [{**values, "rule_number": i} for i in range(700)])
    steps_done, swept = sweep(connection, ForgetProcessed(before=BEFORE), MAX_BELONGINGS + 12)
    assert (steps_done >= 5, swept) == (True, 12)
    assert count(connection, steps) == 0


def test_versions_that_are_or_were_lately_named_are_kept(connection):
    rows = [
        {"version": version, "rules": "x", "kept_at": milliseconds(0, moment)}
        for version, moment in (
            ("of a set", OLD),
            ("of a message", OLD),
            ("of today", NOW),
            ("unnamed", OLD),
        )
    ]
    connection.execute(insert(rule_set_versions), rows)
    values = {"account_id": ACCOUNT, "name": "main", "created_at": 0, "version": "of a set"}
    connection.execute(insert(rule_sets), values)
    connection.execute(insert(processing), a_processing(1, version="of a message"))
    sweep(connection, ForgetVersions(before=BEFORE))
    left = connection.execute(select(rule_set_versions.c.version)).scalars()
    assert set(left) == {"of a set", "of a message", "of today"}


def test_destinations_that_are_paused_or_needed_or_failed_lately_are_kept(connection):
    rows = [
        {"domain": "paused.example", "failures": 0, "paused": 1},
        {"domain": "needed.example", "failures": 0, "paused": 0, "due_at": 5},
        {
            "domain": "lately.example", "failures": 3, "paused": 0,
            "changed_at": milliseconds(0, NOW),
        },
        {"domain": "long-ago.example", "failures": 3, "paused": 0, "changed_at": 5},
        {"domain": "idle.example", "failures": 0, "paused": 0},
    ]  # fmt: skip
    for row in rows:
        connection.execute(insert(destinations), row)
    sweep(connection, ForgetDestinations(before=BEFORE))
    left = connection.execute(select(destinations.c.domain)).scalars()
    assert set(left) == {"paused.example", "needed.example", "lately.example"}


def test_queued_and_held_bounces_are_kept(connection):
    add_to_outbox(connection, [a_bounce(f"b-{s.value}", "a@x.example", OLD) for s in OutboxState])
    connection.exec_driver_sql("UPDATE outbox SET state = substr(message_id, 3)")
    sweep(connection, ForgetFinished(before=BEFORE), 10_000)
    assert set(connection.execute(select(outbox.c.state)).scalars()) == {"queued", "held"}
