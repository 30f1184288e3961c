"""SendBounce, receiving and the processing of mail beside each other on two nodes."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sendback.mail.address import Address
from sendback.mail.envelope import Client, Envelope, Recipient, ReversePath
from sendback.receipt.model import Rule, StopAction
from sendback.receipt.shapes import rules_to_json
from sendback.store.bouncing.bounces import QueueBounce
from sendback.store.bouncing.calls import CallKey
from sendback.store.engine.content.ledger import ClaimContent
from sendback.store.engine.errors import LeaseLostError, RateLimitedError
from sendback.store.engine.leasing import Term
from sendback.store.engine.locking import lock_account
from sendback.store.messages.inspection import DeleteMessages
from sendback.store.messages.messages import (
    AddMessages,
    Body,
    ExpireContent,
    ForgetMessages,
    ReceivedMessage,
)
from sendback.store.rules.processing import (
    ForgetProcessed,
    Processing,
    ProcessingState,
    RecordProgress,
    TakeProcessing,
    processing_id,
)
from sendback.store.rules.processing_control import DropProcessing, RetryProcessing
from sendback.store.rules.rule_sets import LoadRules
from tests.conftest import NOW
from tests.partners.queue import ACCOUNT, a_bounce
from tests.store.postgresql.conftest import OTHER

SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)
RULES = (Rule(name="one", actions=(StopAction(),)),)


def bounce(name, account=ACCOUNT, call=None, interval=SECOND, now=NOW):
    message = a_bounce(name, "x@a.example", now, account_id=account)
    return QueueBounce(message, call, interval)


def call(number):
    return CallKey("AKIA1", f"invocation-{number}", "hash")


def both(*units):
    """Runs units of SendBounce as one group does."""
    return lambda connection: QueueBounce.run_together(connection, units)


def test_the_rate_limit_holds_over_two_nodes(race):
    first, second = race(bounce("m1"), bounce("m2"))
    assert first == "m1"
    assert isinstance(second, RateLimitedError)
    assert race(bounce("m3", now=NOW + SECOND), bounce("m4", account=OTHER)) == ("m3", "m4")


def test_two_accounts_in_two_groups_do_not_deadlock(race):
    units = bounce("m1"), bounce("m2", OTHER), bounce("m3", OTHER), bounce("m4")
    row = f"SELECT 1 FROM accounts WHERE account_id = '{ACCOUNT}' FOR UPDATE"
    found = race.tangle(row, both(*units[:2]), both(*units[2:]))
    refused = [[type(result) is RateLimitedError for result in results] for results in found]
    assert sorted(refused) == [[False] * 2, [True] * 2]


def test_one_call_at_two_nodes_is_one_bounce(race):
    assert race(bounce("m1", call=call(1)), bounce("m2", call=call(1))) == ("m1", "m1")
    assert race.query("SELECT message_id FROM outbox") == [("m1",)]


def test_two_groups_with_the_same_calls_do_not_deadlock(race):
    units = [bounce(f"m{n}", call=call(n % 2), interval=None) for n in (0, 1, 3, 2)]
    assert race(both(*units[:2]), both(*units[2:])) == (["m0", "m1"], ["m1", "m0"])


def test_a_call_that_is_refused_is_not_remembered(race):
    race.run(bounce("m1"))
    first, second = race(bounce("m2", call=call(1)), bounce("m3", call=call(1), now=NOW + SECOND))
    assert isinstance(first, RateLimitedError)
    assert second == "m3"


def test_a_repeated_call_in_a_group_is_one_bounce(race):
    units = [bounce(f"m{n}", call=call(1), interval=None) for n in (1, 2)]
    assert race.run(both(*units)) == ["m1", "m1"]
    refused = race.run(both(*(bounce(f"r{n}", call=call(2)) for n in (1, 2))))
    assert refused == ["r1", "r1"]
    limited = race.run(both(*(bounce(f"l{n}", call=call(3)) for n in (1, 2))))
    assert [type(found) for found in limited] == [RateLimitedError] * 2
    assert race.query("SELECT count(*) FROM outbox") == [(2,)]


def test_sending_does_not_wait_for_receiving(race):
    assert not race.waits(receive("r1"), bounce("m1"))


def test_receiving_does_not_wait_for_a_change_of_its_account(race):
    """Its foreign keys need the account's row, which such a change has locked."""
    assert not race.waits(lambda connection: lock_account(connection, ACCOUNT), receive("r1"))


# --- received mail ----------------------------------------------------------------------------


def receive(name, version="v1", now=NOW):
    """Adds a message whose rules exist no more."""
    envelope = Envelope(
        client=Client(ip="192.0.2.1", helo="x"),
        reverse_path=ReversePath(Address("ann", "sender.example")),
        recipients=(Recipient(Address("bob", "example.com")),),
    )
    message = ReceivedMessage(name, ACCOUNT, now, now + timedelta(days=1), envelope, 1, b"h")
    entry = Processing(processing_id(name, ACCOUNT), name, ACCOUNT, "set", version, now, now)
    return AddMessages((message,), Body(b"x"), ((entry, None),), {version: RULES})


def test_the_body_of_two_accounts_is_unused_when_both_are_deleted(race):
    unit = receive("r1")
    (one,) = unit.messages
    race.run(ClaimContent("blob", None))
    copies = (one, replace(one, account_id=OTHER))
    race.run(AddMessages(copies, Body(None, "blob")))
    race(DeleteMessages(ACCOUNT), DeleteMessages(OTHER))
    assert race.query("SELECT count(*) FROM messages") == [(0,)]
    assert race.query("SELECT blob, state FROM loose_contents") == [("blob", "unused")]


def take(owner, now=NOW):
    return TakeProcessing(Term(owner, now, now + LEASE), 10)


def ended(lease, state=ProcessingState.DONE):
    return RecordProgress(lease, "w", (), (), None, state, NOW, keep=False)


def keys(leases):
    return sorted(lease.processing.message_id for lease in leases)


def held(race, name="r1"):
    race.run(receive(name))
    (lease,) = race.run(take("w"))
    race.run(ended(lease, ProcessingState.HELD))


def test_two_nodes_restore_one_version(race):
    assert race(receive("r1"), receive("r2")) == (None, None)
    assert rules_to_json(race.run(LoadRules("v1"))) == rules_to_json(RULES)


def test_two_nodes_process_different_mail(race):
    for number in range(4):
        race.run(receive(f"r{number}"))
    first, second = race(replace(take("one"), limit=2), take("two"))
    assert keys([*first, *second]) == ["r0", "r1", "r2", "r3"]
    assert len(first) == 2


def test_what_is_being_processed_is_not_dropped(race):
    race.run(receive("r1"))
    leases, count = race(take("w"), DropProcessing(ACCOUNT, ("r1",), NOW, "dropped"))
    assert (keys(leases), count) == (["r1"], 0)


def test_what_is_being_dropped_is_not_processed(race):
    race.run(receive("r1"))
    count, leases = race(DropProcessing(ACCOUNT, ("r1",), NOW, "dropped"), take("w"))
    assert (count, leases) == (1, [])


def test_a_lost_lease_records_nothing(race):
    race.run(receive("r1"))
    (old,) = race.run(take("one"))
    leases, lost = race(take("two", NOW + LEASE), ended(old))
    assert keys(leases) == ["r1"]
    assert isinstance(lost, LeaseLostError)


LATE = NOW + timedelta(days=30)
DELETES = {
    "content": ExpireContent(now=LATE, held_since=LATE),
    "messages": ForgetMessages(now=LATE, before=LATE),
    "processing": ForgetProcessed(before=LATE),
    "by hand": DeleteMessages(ACCOUNT),
}


@pytest.mark.parametrize("delete", DELETES.values(), ids=DELETES.keys())
def test_mail_whose_processing_is_being_retried_is_not_deleted(race, delete):
    held(race)
    count, _ = race(RetryProcessing(ACCOUNT, ("r1",), NOW), delete)
    assert count == 1
    assert race.query("SELECT body IS NOT NULL FROM messages") == [(True,)]
    assert keys(race.run(take("w"))) == ["r1"]
