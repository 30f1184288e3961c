"""NUL, which PostgreSQL's text cannot hold: refused with an error of the unit, or replaced."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import String, Text

from sendback.receipt.model import Disposition
from sendback.receipt.plan import StepOutcome
from sendback.store.access.accounts import AddAccount
from sendback.store.access.keys import FindKey
from sendback.store.access.users import AddUser
from sendback.store.bouncing.calls import CallKey, find_calls
from sendback.store.engine.column_types import InvalidTextError
from sendback.store.engine.leasing import Term
from sendback.store.engine.store import Store, prepare_schema
from sendback.store.engine.tables import metadata
from sendback.store.identities.identities import IsVerified
from sendback.store.outbox.control import FindOutboxMessage
from sendback.store.outbox.queue import FailDelivery, RecordAttempt, TakeLeases, add_to_outbox
from sendback.store.outbox.rows import Attempt, OutboxState, Outcome
from sendback.store.rules.processing import (
    FindProcessing,
    Processing,
    ProcessingState,
    RecordProgress,
    StepRecord,
    TakeProcessing,
    add_processing,
    processing_id,
)
from sendback.store.rules.targets import FindTarget, put_targets
from tests.conftest import NOW
from tests.partners.postgresql import database_url
from tests.partners.queue import ACCOUNT, a_bounce

TERM = Term("w", NOW, NOW + timedelta(seconds=30))
BAD = "a\0b"


@pytest.fixture
def store(tmp_path):
    url = database_url(tmp_path)
    prepare_schema(url)
    instance = Store(url, tmp_path)
    yield instance
    instance.close()


READS = [
    FindKey(BAD),
    FindTarget(ACCOUNT, "bucket", BAD),
    IsVerified(ACCOUNT, (BAD,)),
    lambda connection: find_calls(connection, {CallKey("key", BAD, "hash")}),
]
WRITES = [
    AddUser(ACCOUNT, BAD, NOW),
    lambda connection: put_targets(connection, ACCOUNT, {("bucket", "x"): BAD}, prune=False),
    AddAccount("111111111111", NOW, BAD),
]


@pytest.mark.parametrize("number", range(len(READS) + len(WRITES)))
def test_a_nul_fails_its_own_unit_and_no_other_of_the_group(store, number):
    bad = [*READS, *WRITES][number]
    run = store.read if number < len(READS) else store.write

    async def story():
        await store.write(AddAccount(ACCOUNT, NOW))
        units = [FindKey("good"), bad, FindKey("good")]
        results = await asyncio.gather(*map(run, units), return_exceptions=True)
        assert results[::2] == [None, None]
        assert isinstance(results[1], InvalidTextError)

    asyncio.run(story())


def test_a_servers_reply_is_recorded_with_its_nul_replaced(store):
    async def story():
        await store.write(AddAccount(ACCOUNT, NOW))
        rows = [a_bounce(name, "a@x.example", NOW) for name in ("m1", "m2")]
        await store.write(lambda connection: add_to_outbox(connection, rows))
        leases = await store.write(TakeLeases(TERM, 10, capacity=10, probes=1, capacities={}))
        attempt = Attempt(NOW, 1, Outcome.TEMPORARY, BAD, None, BAD)
        await store.write(RecordAttempt(leases[0], attempt, OutboxState.QUEUED, NOW))
        await store.write(FailDelivery(leases[1], BAD, TERM))
        for lease in leases:
            message, _ = await store.read(FindOutboxMessage(ACCOUNT, lease.message.message_id))
            assert message.last_reply == "a\ufffdb"
        entry = Processing(processing_id("p", ACCOUNT), "p", ACCOUNT, "main", "v", NOW, NOW)
        await store.write(lambda connection: add_processing(connection, [(entry, None)]))
        (lease,) = await store.write(TakeProcessing(TERM, 10))
        step = StepRecord(
            0, 0, "r", "S3", StepOutcome.DONE, Disposition.CONTINUE, 1, NOW, NOW, NOW, 1, BAD
        )
        held = ProcessingState.HELD
        unit = RecordProgress(lease, "w", (step,), (), None, held, NOW, False, reason=BAD)
        await store.write(unit)
        processing, steps = await store.read(FindProcessing(ACCOUNT, "p"))
        assert processing.reason == steps[0].result == "a\ufffdb"

    asyncio.run(story())


# Tables with unguarded text: what this program makes or has parsed, and the queues' tables, where
# `without_nul` replaces NUL in the replies of servers.
_PLAIN = {"messages", "processing", "steps", "outbox", "attempts", "destinations"}
# Names that this program makes, and the URL of a setting.
_PLAIN |= {"content_chunks", "content_stores", "loose_contents"}


def test_every_other_text_column_is_guarded():
    plain = {
        (table.name, column.name)
        for table in metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, String | Text) and table.name not in _PLAIN
    }
    unguarded = {(t, c) for t, c in plain if c != "account_id"}
    assert unguarded == {("accounts", "active_rule_set"), ("outbox_contents", "message_id")}
