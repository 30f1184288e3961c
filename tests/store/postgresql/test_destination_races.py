"""Destinations, leases and the outbox beside each other on two nodes."""

from datetime import timedelta

import pytest

from sendback.clock import to_milliseconds
from sendback.store.engine.leasing import Term
from sendback.store.outbox.control import ChangeState
from sendback.store.outbox.destinations import Block, ForgetDestinations, PauseDestination
from sendback.store.outbox.inspection import DeleteOutgoing
from sendback.store.outbox.queue import (
    ExpireWaiting,
    ForgetFinished,
    RecordAttempt,
    Requeue,
    TakeLeases,
    TakeSuspect,
    add_to_outbox,
)
from sendback.store.outbox.rows import Attempt, OutboxState, Outcome
from tests.conftest import NOW
from tests.partners.queue import ACCOUNT, a_bounce

LEASE = timedelta(seconds=30)
HOUR = timedelta(hours=1)


def add(*names, domain="a.example", now=NOW):
    messages = [a_bounce(name, f"x@{domain}", now) for name in names]
    return lambda connection: add_to_outbox(connection, messages)


def take(owner, now=NOW, limit=10, capacity=10, probes=10):
    return TakeLeases(Term(owner, now, now + LEASE), limit, capacity, probes, {})


def ids(leases):
    return sorted(lease.message.message_id for lease in leases)


def result(lease, state=OutboxState.DELIVERED, due_at=NOW, block=None):
    attempt = Attempt(NOW, 1, Outcome.DELIVERED, "peer", None, "250 ok")
    return RecordAttempt(lease, attempt, state, due_at, block)


def due_date(race, domain="a.example"):
    ((found,),) = race.query(f"SELECT due_at FROM destinations WHERE domain = '{domain}'")
    return found


def fail(race, *domains, failures=1):
    """Leave each domain with a failed message, and a block that ends now."""
    for number, domain in enumerate(domains):
        race.run(add(f"f{number}", domain=domain))
    for lease in race.run(take("w")):
        race.run(result(lease, OutboxState.QUEUED, NOW, Block(failures, NOW, "no answer")))


def delivered(race, name="old"):
    """Leave a domain whose only message is delivered, and which is due for a visit."""
    race.run(add(name))
    (lease,) = race.run(take("w"))
    race.run(result(lease))


VISIT = take("w", now=NOW + HOUR)


def test_mail_that_is_queued_before_a_visit_ends_is_found(race):
    """The visit finds no mail, because the other transaction is not committed."""
    delivered(race)
    race(add("new", now=NOW + HOUR), VISIT)
    assert due_date(race) == to_milliseconds(NOW + HOUR)
    assert ids(race.run(VISIT)) == ["new"]


def test_mail_that_is_queued_while_a_visit_is_committed_is_found(race):
    """The date looks early enough, and is deleted by the transaction before."""
    delivered(race)
    race(VISIT, add("new", now=NOW + HOUR))
    assert due_date(race) == to_milliseconds(NOW + HOUR)
    assert ids(race.run(VISIT)) == ["new"]


def test_mail_that_is_queued_while_its_idle_destination_is_deleted_is_found(race):
    delivered(race)
    race.run(VISIT)
    assert due_date(race) is None
    race(ForgetDestinations(before=NOW), add("new"))
    assert ids(race.run(take("w"))) == ["new"]


def test_a_destination_with_new_mail_is_not_deleted(race):
    delivered(race)
    race.run(VISIT)
    race(add("new"), ForgetDestinations(before=NOW))
    assert ids(race.run(take("w"))) == ["new"]


def test_two_nodes_queue_the_first_mail_for_a_domain(race):
    assert race(add("m1"), add("m2")) == (None, None)
    assert ids(race.run(take("w"))) == ["m1", "m2"]


def test_two_nodes_pause_an_unknown_domain(race):
    pause = PauseDestination("a.example", True, NOW)
    assert race(pause, pause) == (False, False)


def test_the_earlier_of_two_dates_stays(race):
    race(add("m1", now=NOW + HOUR), add("m2"))
    assert due_date(race) == to_milliseconds(NOW)


def test_a_visit_does_not_skip_a_domain_for_which_mail_is_being_queued(race):
    race.run(add("m1"))
    assert ids(race(add("m2"), take("w"))[1]) == ["m1"]


def test_two_nodes_lease_different_messages(race):
    race.run(add(*(f"m{number}" for number in range(10))))
    first, second = race(take("one", limit=6, capacity=6), take("two", limit=6, capacity=6))
    assert len(first) == 6
    assert ids([*first, *second]) == [f"m{number}" for number in range(10)]


def test_one_node_probes_a_domain_that_has_failed(race):
    fail(race, "a.example")
    race.run(add("more"))
    first, second = race(take("one"), take("two"))
    assert (len(first), len(second)) == (1, 0)
    # What the second node had leased for its probe is neither lost nor counted as tried.
    assert ids(race.run(take("three", now=NOW + LEASE))) == ["more"]
    assert race.query("SELECT max(tries) FROM outbox") == [(1,)]


def test_a_suspect_is_no_second_probe(race):
    fail(race, "a.example")
    race.run(add("suspect"))
    race.run(
        lambda c: c.exec_driver_sql("UPDATE outbox SET tries = 2 WHERE message_id = 'suspect'")
    )
    first, second = race(take("one"), TakeSuspect(Term("two", NOW, NOW + LEASE)))
    assert (len(first), second) == (1, None)
    assert race.run(TakeSuspect(Term("two", NOW + LEASE, NOW + 2 * LEASE))) is not None


def test_probes_and_results_of_two_domains_do_not_deadlock(race):
    """Each transaction changes both destinations, and comes to them from another side."""
    fail(race, "a.example", "b.example")
    probes = race.run(take("w"))
    assert len(probes) == 2
    first, second = sorted(probes, key=lambda lease: lease.message.domain)
    one, two = race.nodes
    one.begin(result(first), add("x1", domain="b.example")).result(20)
    other = two.begin(result(second), add("x2", domain="a.example"))
    one.commit()
    other.result(20)
    two.commit()
    assert race.query("SELECT count(*) FROM destinations WHERE failures = 0") == [(2,)]


def test_a_block_beside_a_recovery_of_another_domain_and_new_mail(race):
    fail(race, "a.example", "b.example")
    first, second = sorted(race.run(take("w")), key=lambda lease: lease.message.domain)
    block = Block(2, NOW + HOUR, "no answer")
    units = (
        lambda c: (result(second, OutboxState.QUEUED, NOW, block)(c), add("m1")(c)),
        lambda c: (result(first)(c), add("m2", domain="b.example")(c)),
    )
    for found in race(*units):
        assert not isinstance(found, Exception)
    assert due_date(race, "b.example") == to_milliseconds(NOW + HOUR)
    assert due_date(race, "a.example") == to_milliseconds(NOW)


def test_groups_that_come_to_two_domains_from_different_sides_do_not_deadlock(race):
    for domain in ("a.example", "b.example"):
        race.run(add(f"first-{domain}", domain=domain, now=NOW + HOUR))

    def group(number, *domains):
        return lambda c: [add(f"{number}{domain}", domain=domain)(c) for domain in domains] and None

    row = "SELECT 1 FROM destinations WHERE domain = 'a.example' FOR UPDATE"
    groups = group(1, "a.example", "b.example"), group(2, "b.example", "a.example")
    assert race.tangle(row, *groups) == (None, None)
    assert len(race.run(take("w"))) == 4


def cancel(*names):
    return ChangeState(names, (OutboxState.QUEUED,), OutboxState.CANCELLED, NOW)


def test_what_is_being_leased_is_not_cancelled(race):
    race.run(add("m1"))
    leases, count = race(take("w"), cancel("m1"))
    assert (ids(leases), count) == (["m1"], 0)


def test_what_is_being_cancelled_is_not_leased(race):
    race.run(add("m1"))
    count, leases = race(cancel("m1"), take("w"))
    assert (count, leases) == (1, [])


def test_what_is_being_leased_does_not_expire(race):
    race.run(add("m1"))
    late = NOW + timedelta(days=6)
    leases, swept = race(take("w", now=late), ExpireWaiting(now=late))
    assert (ids(leases), swept.count) == (["m1"], 0)


@pytest.mark.parametrize(
    "deletes",
    [
        pytest.param(lambda c: ForgetFinished(before=NOW + HOUR)(c).count, id="sweep"),
        pytest.param(DeleteOutgoing(ACCOUNT), id="delete"),
    ],
)
def test_what_is_being_retried_is_not_deleted(race, deletes):
    race.run(add("m1"))
    race.run(cancel("m1"))
    retry = ChangeState(("m1",), (OutboxState.CANCELLED,), OutboxState.QUEUED, NOW)
    race(retry, deletes)
    assert ids(race.run(take("w"))) == ["m1"]


def test_a_lost_lease_is_not_requeued(race):
    race.run(add("m1"))
    (old,) = race.run(take("one"))
    later = NOW + LEASE
    ((new,), _) = race(take("two", now=later), Requeue(old, NOW))
    assert race.run(take("three", now=later)) == []
    race.run(result(new))
