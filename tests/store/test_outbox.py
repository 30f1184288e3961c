"""The outbox: which rows are leased, in which order, and how destinations delay them."""

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import not_, select

from sendback.clock import to_milliseconds
from sendback.store.engine.leasing import Term
from sendback.store.engine.tables import destinations, outbox
from sendback.store.outbox.control import (
    ChangeState,
    ChooseOutbox,
    CountStates,
    ListOutbox,
    Selection,
)
from sendback.store.outbox.destinations import Block, ListDestinations, PauseDestination
from sendback.store.outbox.queue import (
    ExpireWaiting,
    ForgetFinished,
    HasSuspects,
    RecordAttempt,
    Requeue,
    TakeLeases,
    add_to_outbox,
)
from sendback.store.outbox.rows import IS_TRUSTED, Attempt, OutboxState, Outcome
from tests.conftest import NOW
from tests.partners.postgresql import scratch_connection
from tests.partners.queue import ACCOUNT, a_bounce, is_recorded

LEASE = timedelta(seconds=30)


@pytest.fixture
def connection():
    with scratch_connection() as found:
        yield found


def add(connection, *recipients, now=NOW, lasts=timedelta(days=5)):
    start = connection.execute(select(outbox)).all()
    messages = [
        a_bounce(f"m{len(start) + number}", recipient, now, expires_at=now + lasts)
        for number, recipient in enumerate(recipients)
    ]
    add_to_outbox(connection, messages)


def take(connection, now=NOW, limit=100, capacity=100, probes=10, capacities=None):
    term = Term("w", now, now + LEASE)
    return TakeLeases(term, limit, capacity, probes, capacities or {})(connection)


def ids(leases):
    return [lease.message.message_id for lease in leases]


def record(connection, lease, state, due_at=NOW, block=None):
    outcome = Outcome.DELIVERED if state is OutboxState.DELIVERED else Outcome.TEMPORARY
    attempt = Attempt(NOW, 1, outcome, "peer", None, "words")
    return is_recorded(RecordAttempt(lease, attempt, state, due_at, block), connection)


def test_each_domain_has_its_own_capacity(connection):
    add(connection, *["a@a.example"] * 5, *["b@b.example"] * 5, "c@c.example")
    found = take(connection, capacity=2, capacities={"b.example": 0})
    assert sorted(lease.message.domain for lease in found) == ["a.example"] * 2 + ["c.example"]
    assert len(take(connection, capacity=9, limit=4)) == 4


def test_domains_are_visited_in_rotation(connection):
    """Also when one has older mail, and more than the capacity."""
    add(connection, *["a@a.example"] * 50, now=NOW - timedelta(hours=1))
    add(connection, *["b@b.example"] * 5, *["c@c.example"] * 5)
    moments = [NOW + timedelta(seconds=number) for number in (1, 2, 3)]
    found = [take(connection, moment, limit=2, capacity=2)[0].message.domain for moment in moments]
    assert sorted(found) == ["a.example", "b.example", "c.example"]


def test_a_leased_row_is_not_leased_again_before_its_lease_ends(connection):
    add(connection, "a@a.example", "a@a.example")
    assert len(take(connection)) == 2
    assert take(connection, NOW + LEASE - timedelta(seconds=1)) == []
    assert len(take(connection, NOW + LEASE)) == 2


def test_a_blocked_domain_is_skipped_until_the_block_ends_and_then_probed(connection):
    add(connection, *["a@a.example"] * 3)
    first, second, third = take(connection)
    until = NOW + timedelta(minutes=1)
    block = Block(1, until, "no answer")
    assert record(connection, first, OutboxState.QUEUED, NOW, block)
    for lease in (second, third):
        Requeue(lease, NOW)(connection)
    add(connection, "a@a.example")
    assert take(connection, until - timedelta(seconds=1)) == []
    (probe,) = take(connection, until)
    assert probe.failures == 1
    assert take(connection, until + LEASE / 2) == []  # one at a time
    record(connection, probe, OutboxState.DELIVERED)
    assert len(take(connection, until)) == 3


def test_the_number_of_probes_is_limited(connection):
    names = [f"a@d{n}.example" for n in range(5)]
    add(connection, *names)
    for lease in take(connection):
        record(connection, lease, OutboxState.QUEUED, NOW, Block(1, NOW, "no answer"))
    assert len(take(connection, probes=2)) == 2
    assert take(connection, probes=0) == []


def test_the_count_of_failures_does_not_decrease(connection):
    add(connection, "a@a.example", "a@a.example")
    first, second = take(connection)
    record(connection, first, OutboxState.QUEUED, NOW, Block(3, NOW, "x"))
    record(connection, second, OutboxState.QUEUED, NOW, Block(1, NOW, "x"))
    (found,) = ListDestinations()(connection)
    assert (found.failures, found.waiting, found.reason) == (3, 2, "x")


def test_a_worker_whose_lease_was_lost_changes_nothing(connection):
    add(connection, "a@a.example")
    (first,) = take(connection)
    (second,) = take(connection, NOW + LEASE)
    assert not record(connection, first, OutboxState.DELIVERED)
    Requeue(first, NOW)(connection)
    assert take(connection, NOW + LEASE) == []
    assert record(connection, second, OutboxState.DELIVERED)


def test_mail_for_a_paused_domain_waits_also_when_queued_later(connection):
    add(connection, "a@a.example")
    for domain in ("a.example", "b.example"):  # one with mail, one without
        PauseDestination(domain, True, NOW)(connection)
    add(connection, "a@a.example", "b@b.example", "c@c.example")
    assert [lease.message.domain for lease in take(connection)] == ["c.example"]
    PauseDestination("a.example", False, NOW)(connection)
    assert len(take(connection)) == 2
    (found,) = [d for d in ListDestinations()(connection) if d.is_paused]
    assert (found.domain, found.waiting) == ("b.example", 1)


def change_state(connection, state, origin, *, now=NOW, **chosen):
    found = ChooseOutbox(Selection(ACCOUNT, **chosen), origin)(connection)
    return ChangeState(tuple(found), origin, state, now, now + timedelta(days=5))(connection)


QUEUED, HELD, CANCELLED = OutboxState.QUEUED, OutboxState.HELD, OutboxState.CANCELLED


def test_holding_and_releasing(connection):
    add(connection, "a@a.example", "b@a.example", "c@c.example")
    assert change_state(connection, HELD, (QUEUED,), domain="a.example") == 2
    assert ids(take(connection)) == ["m2"]
    assert change_state(connection, HELD, (QUEUED,)) == 0  # the third one is being tried
    assert change_state(connection, QUEUED, (HELD,), recipient="b@*") == 1
    assert ids(take(connection)) == ["m1"]
    assert change_state(connection, CANCELLED, (QUEUED, HELD), message_ids=("m0",)) == 1
    assert CountStates(ACCOUNT)(connection) == {QUEUED: 2, CANCELLED: 1}


def test_retrying_unblocks_the_domain(connection):
    add(connection, "a@a.example")
    (lease,) = take(connection)
    later = NOW + timedelta(hours=1)
    record(connection, lease, QUEUED, later, Block(1, later, "x"))
    assert take(connection) == []
    assert change_state(connection, QUEUED, (QUEUED,)) == 1
    assert ids(take(connection)) == ["m0"]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({}, {"m0", "m1", "m2"}),
        ({"recipient": "*@b.example"}, {"m1"}),
        ({"recipient": "a_b@*"}, {"m2"}),
        ({"recipient": "?@a.example"}, {"m0"}),
        ({"recipient": "%"}, set()),
        ({"domain": "b.example"}, {"m1"}),
        ({"message_ids": ("m0", "m2", "x")}, {"m0", "m2"}),
        ({"reply": "wor"}, {"m0"}),
        ({"reply": "w%s"}, set()),
        ({"original_message_id": "o2"}, set()),
        ({"created_before": NOW}, set()),
        ({"states": (OutboxState.DELIVERED,)}, {"m0"}),
    ],
)
def test_a_selection_finds_the_matching_messages(connection, chosen, found):
    add(connection, "a@a.example", "b@b.example", "a_b@c.example")
    leases = take(connection, capacities={"b.example": 0, "c.example": 0})
    record(connection, leases[0], OutboxState.DELIVERED)
    selected = ListOutbox(Selection(ACCOUNT, **chosen), 10)(connection)
    assert {message.message_id for message in selected} == found
    assert ListOutbox(Selection("1" * 12, **chosen), 10)(connection) == []


def test_overdue_mail_expires_and_old_mail_is_deleted(connection):
    add(connection, "a@a.example", "a@a.example", lasts=timedelta(hours=1))
    add(connection, "b@b.example")
    (held,) = take(connection, limit=1)
    late = NOW + timedelta(hours=2)
    assert ExpireWaiting(now=late)(connection).count == 1
    assert CountStates(ACCOUNT)(connection) == {QUEUED: 2, OutboxState.EXPIRED: 1}
    record(connection, held, OutboxState.DELIVERED)
    assert ForgetFinished(before=late)(connection).count == 2
    assert CountStates(ACCOUNT)(connection) == {QUEUED: 1}


_DOMAINS = ["a.example", "b.example", "c.example"]
_STEP = st.tuples(
    st.sampled_from(["add", "take", "deliver", "retry", "block", "back", "wait", "pause", "hold"]),
    st.sampled_from(_DOMAINS),
    st.integers(1, 3),
)


class Play:
    """The steps of an operator, a worker and the clock, each a method."""

    def __init__(self, connection):
        self.connection, self.now, self.held = connection, NOW, []

    def add(self, domain, number):
        add(self.connection, *[f"x@{domain}"] * number, now=self.now)

    def take(self, _, number):
        self.held += take(self.connection, self.now, limit=number, capacity=2)

    def wait(self, _, number):
        self.now += timedelta(seconds=20 * number)

    def pause(self, domain, number):
        PauseDestination(domain, number == 1, self.now)(self.connection)

    def hold(self, domain, number):
        state, origin = (HELD, QUEUED) if number == 1 else (QUEUED, HELD)
        change_state(self.connection, state, (origin,), now=self.now, domain=domain)

    def back(self, _, __):
        for lease in self._next():
            Requeue(lease, self.now)(self.connection)

    def deliver(self, _, __):
        for lease in self._next():
            record(self.connection, lease, OutboxState.DELIVERED, self.now)

    def retry(self, _, number):
        for lease in self._next():
            record(self.connection, lease, QUEUED, self.now + timedelta(seconds=30 * number))

    def block(self, _, number):
        until = self.now + timedelta(seconds=30 * number)
        for lease in self._next():
            record(self.connection, lease, QUEUED, until, Block(number, until, "x"))

    def _next(self):
        first, self.held = self.held[:1], self.held[1:]
        return first


@pytest.mark.fuzz
@given(st.lists(_STEP, max_size=25))
@example([("add", "a.example", 1), ("take", "", 1), ("wait", "", 2), ("take", "", 1)])
@example([("add", "a.example", 1), *[("take", "", 1), ("wait", "", 3)] * 8])
def test_no_destination_is_due_later_than_its_mail(steps):
    """After any steps, its date is at most the latest of its mail's, its block's end, and now.

    Suspects do not count: they are queried by their own date.
    """
    with scratch_connection() as connection:
        play = Play(connection)
        for step, domain, number in steps:
            getattr(play, step)(domain, number)
            check_dates(connection, play.now)


def check_dates(connection, now):
    rows = connection.execute(select(destinations)).all()
    for row in rows:
        dues = connection.execute(
            select(outbox.c.due_at).where(outbox.c.domain == row.domain, IS_TRUSTED)
        ).scalars()
        earliest = min(dues, default=None)
        if earliest is not None:
            assert row.due_at is not None
            assert row.due_at <= max(earliest, row.blocked_until or 0, to_milliseconds(now))
        if not row.paused and (row.blocked_until or 0) <= to_milliseconds(now):
            suspects = select(outbox.c.message_id).where(
                outbox.c.domain == row.domain,
                outbox.c.state == "queued",
                not_(IS_TRUSTED),
                outbox.c.due_at <= to_milliseconds(now),
            )
            is_due = connection.execute(suspects).first() is not None
            assert not is_due or HasSuspects(now)(connection)
    known = {row.domain for row in rows}
    assert set(connection.execute(select(outbox.c.domain)).scalars()) <= known
