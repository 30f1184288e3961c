"""Rows that break their worker: leases are counted, suspects leased one by one, and then held.

Tested with both queues: processing and the outbox.
"""

from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from sendback.clock import to_milliseconds
from sendback.receipt.model import Disposition
from sendback.receipt.plan import StepOutcome
from sendback.store.engine.leasing import DIED, MOST_TRIES, Term, penalty
from sendback.store.engine.tables import outbox, processing
from sendback.store.outbox.control import ChangeState, ChooseOutbox, FindOutboxMessage, Selection
from sendback.store.outbox.queue import (
    FailDelivery,
    HasSuspects,
    RecordAttempt,
    RenewLeases,
    Requeue,
    TakeLeases,
    TakeSuspect,
    add_to_outbox,
)
from sendback.store.outbox.rows import Attempt, OutboxState, Outcome
from sendback.store.rules.processing import (
    FailProcessing,
    FindProcessing,
    GiveBackProcessing,
    HasSuspectProcessing,
    Processing,
    ProcessingState,
    RecordProgress,
    ReleaseProcessing,
    RenewProcessing,
    StepRecord,
    TakeProcessing,
    TakeSuspectProcessing,
    add_processing,
    processing_id,
)
from sendback.store.rules.processing_control import (
    ChooseProcessing,
    DropProcessing,
    RetryProcessing,
)
from tests.conftest import NOW
from tests.partners.postgresql import scratch_connection
from tests.partners.queue import ACCOUNT, a_bounce, is_recorded

LEASE = timedelta(seconds=30)
STEP = timedelta(seconds=10)
OWNER = "w"


def term(now, owner=OWNER):
    return Term(owner, now, now + LEASE)


@dataclass
class ProcessingQueue:
    """The queue of processing, with the interface that the tests use."""

    connection: object
    table = processing
    key = processing.c.message_id

    def add(self, *ids, now=NOW):
        for name in ids:
            entry = Processing(processing_id(name, ACCOUNT), name, ACCOUNT, "main", "v", now, now)
            add_processing(self.connection, [(entry, None)])

    def take(self, now, limit=1000, owner=OWNER):
        leases = TakeProcessing(term(now, owner), limit)(self.connection)
        return {lease.processing.message_id: lease for lease in leases}

    def has_suspects(self, now):
        return HasSuspectProcessing(now)(self.connection)

    def suspect(self, now):
        return TakeSuspectProcessing(term(now))(self.connection)

    def name(self, lease):
        return lease.processing.message_id

    def renew(self, lease, now):
        RenewProcessing(term(now), (lease.processing.processing_id,))(self.connection)

    def release(self, lease, now, owner=OWNER):
        ReleaseProcessing(owner, (lease.processing.processing_id,), now)(self.connection)

    def give_back(self, lease, due_at):
        GiveBackProcessing(lease, due_at)(self.connection)

    def fail(self, lease, now, *, final=False):
        FailProcessing(lease, "a bug", term(now), final)(self.connection)

    def record(self, lease, due_at, *, done=False):
        state = ProcessingState.DONE if done else ProcessingState.QUEUED
        unit = RecordProgress(lease, OWNER, (), (), None, state, due_at, keep=False)
        return is_recorded(unit, self.connection)

    def show(self, name):
        found = FindProcessing(ACCOUNT, name)(self.connection)[0]
        return found.state.value, found.reason

    def retry(self, name, now):
        chosen = ChooseProcessing(ACCOUNT, (ProcessingState.HELD,), (name,))(self.connection)
        return RetryProcessing(ACCOUNT, tuple(chosen), now)(self.connection)


@dataclass
class OutboxQueue:
    """The outbox, with the interface that the tests use and a domain for each message."""

    connection: object
    table = outbox
    key = outbox.c.message_id

    def add(self, *ids, now=NOW):
        rows = [a_bounce(name, f"a@{name}.example", now) for name in ids]
        add_to_outbox(self.connection, rows)

    def take(self, now, limit=1000, owner=OWNER):
        unit = TakeLeases(term(now, owner), limit, capacity=10, probes=10, capacities={})
        return {self.name(lease): lease for lease in unit(self.connection)}

    def has_suspects(self, now):
        return HasSuspects(now)(self.connection)

    def suspect(self, now):
        return TakeSuspect(term(now))(self.connection)

    def name(self, lease):
        return lease.message.message_id

    def renew(self, lease, now):
        RenewLeases(term(now), (lease.message.message_id,))(self.connection)

    def release(self, lease, now, owner=OWNER):
        if owner == OWNER:
            Requeue(lease, now)(self.connection)

    def give_back(self, lease, due_at):
        Requeue(lease, due_at)(self.connection)

    def fail(self, lease, now, *, final=False):
        FailDelivery(lease, "a bug", term(now), final)(self.connection)

    def record(self, lease, due_at, *, done=False):
        state = OutboxState.DELIVERED if done else OutboxState.QUEUED
        attempt = Attempt(NOW, 1, Outcome.TEMPORARY, "peer", None, "words")
        return is_recorded(RecordAttempt(lease, attempt, state, due_at), self.connection)

    def show(self, name):
        found = FindOutboxMessage(ACCOUNT, name)(self.connection)[0]
        return found.state.value, found.last_reply

    def retry(self, name, now):
        held = (OutboxState.HELD,)
        chosen = ChooseOutbox(Selection(ACCOUNT, message_ids=(name,)), held)(self.connection)
        return ChangeState(tuple(chosen), held, OutboxState.QUEUED, now, now + LEASE)(
            self.connection
        )


@pytest.fixture(params=[ProcessingQueue, OutboxQueue])
def queue(request):
    yield from opened(request.param)


def opened(kind):
    with scratch_connection() as connection:
        yield kind(connection)


def due_at(queue, name):
    query = select(queue.table.c.due_at).where(queue.key == name)
    return queue.connection.execute(query).scalar_one()


def die(queue, name, now):
    """Lease the row, perhaps as a suspect, without a result; return when it is due again."""
    lease = queue.take(now).get(name) or queue.suspect(now)
    assert queue.name(lease) == name
    return now + timedelta(milliseconds=due_at(queue, name) - to_milliseconds(now))


def test_the_delay_grows_with_each_lease_without_a_result(queue):
    queue.add("m")
    now, waits = NOW, []
    for _ in range(MOST_TRIES):
        due = die(queue, "m", now)
        waits.append(due - now - LEASE)
        assert queue.take(due - timedelta(milliseconds=1)) == {}
        assert queue.suspect(due - timedelta(milliseconds=1)) is None
        now = due
    assert waits == [STEP * n**2 for n in range(MOST_TRIES)]
    assert waits == [penalty(STEP, n) for n in range(MOST_TRIES)]


def test_the_fifth_death_sets_the_row_aside(queue):
    queue.add("m")
    now = NOW
    for _ in range(MOST_TRIES):
        now = die(queue, "m", now)
    assert queue.show("m")[0] == "queued"
    assert queue.has_suspects(now)
    assert queue.take(now) == {}
    assert queue.suspect(now) is None
    assert queue.show("m") == ("held", DIED)
    assert not queue.has_suspects(now + timedelta(days=1))


def test_an_operators_retry_resets_the_count(queue):
    queue.add("m")
    now = NOW
    for _ in range(MOST_TRIES):
        now = die(queue, "m", now)
    queue.suspect(now)
    assert queue.retry("m", now) == 1
    assert queue.retry("m", now) == 0
    assert due_at(queue, "m") == to_milliseconds(now)
    lease = queue.take(now)["m"]
    assert lease.tries == 1


def test_suspects_are_taken_one_at_a_time_and_the_longest_due_first(queue):
    queue.add("a", "b", "c")
    for now in (NOW, NOW + timedelta(minutes=5)):
        assert set(queue.take(now)) == {"a", "b", "c"}  # and the worker dies
    now += timedelta(minutes=5)
    queue.add("new", now=now)
    assert set(queue.take(now)) == {"new"}
    assert queue.has_suspects(now)
    taken = []
    while (lease := queue.suspect(now)) is not None:
        taken.append(queue.name(lease))
        assert lease.tries == 3
    assert sorted(taken) == ["a", "b", "c"]
    assert not queue.has_suspects(now)


def test_a_result_clears_a_suspect(queue):
    queue.add("m")
    now = NOW
    for _ in range(3):
        now = die(queue, "m", now)
    lease = queue.suspect(now)
    assert lease.tries == 4
    assert queue.record(lease, now)
    lease = queue.take(now)["m"]  # no longer a suspect
    assert lease.tries == 1
    assert queue.record(lease, now, done=True)


def test_a_lease_returned_untried_is_not_counted(queue):
    queue.add("m")
    now = NOW
    for _ in range(2 * MOST_TRIES):
        lease = queue.take(now)["m"]
        assert lease.tries == 1
        queue.give_back(lease, now)
    lease = queue.take(now)["m"]
    queue.release(lease, now, owner="another")
    assert queue.take(now) == {}
    queue.release(lease, now)
    assert queue.take(now)["m"].tries == 1


def test_renewing_keeps_the_extra_delay(queue):
    queue.add("m")
    now = NOW
    for _ in range(3):
        now = die(queue, "m", now)
    lease = queue.suspect(now)
    later = now + timedelta(seconds=20)
    queue.renew(lease, later)
    assert due_at(queue, "m") == to_milliseconds(later + LEASE + penalty(STEP, 3))


def test_a_row_whose_worker_fails_is_delayed_longer_each_time_and_then_held(queue):
    queue.add("m")
    now = NOW
    for number in range(1, MOST_TRIES):
        lease = queue.take(now).get("m") or queue.suspect(now)
        assert lease.tries == number
        queue.fail(lease, now)
        assert queue.show("m") == ("queued", "a bug")
        assert due_at(queue, "m") == to_milliseconds(now + penalty(STEP, number))
        now += penalty(STEP, number)
    queue.fail(queue.suspect(now), now)
    assert queue.show("m") == ("held", "a bug")


def test_a_final_failure_holds_the_row_at_once(queue):
    queue.add("m")
    queue.fail(queue.take(NOW)["m"], NOW, final=True)
    assert queue.show("m") == ("held", "a bug")


def test_a_worker_whose_lease_was_lost_changes_nothing(queue):
    """Another worker has leased the row: the first one can neither fail nor requeue it."""
    queue.add("m")
    late = queue.take(NOW)["m"]
    now = NOW + LEASE
    queue.take(now, owner="another")
    before = due_at(queue, "m")
    queue.fail(late, now)
    queue.give_back(late, now)
    assert not queue.record(late, now)
    assert (due_at(queue, "m"), queue.show("m")[0]) == (before, "queued")


def test_a_row_that_cannot_be_read_does_not_stop_its_queue(queue):
    """The other rows are leased, and the unreadable one is held."""
    queue.add("a", "m", "z")
    bad = {"outbox": {"created_at": 2**60}, "processing": {"created_at": 2**60}}[queue.table.name]
    where = queue.key == "m"
    queue.connection.execute(update(queue.table).where(where).values(bad))
    assert set(queue.take(NOW)) == {"a", "z"}
    found = queue.connection.execute(select(queue.table).where(where)).one()
    assert found.state == "held"
    assert "cannot be read" in (getattr(found, "reason", None) or found.last_reply)


def test_a_step_that_cannot_be_read_sets_its_message_aside():
    for queue in opened(ProcessingQueue):
        queue.add("a", "m")
        lease = queue.take(NOW)["m"]
        step = StepRecord(
            rule_number=0,
            action_number=0,
            rule="r",
            action="S3",
            outcome=StepOutcome.RETRY,
            disposition=Disposition.CONTINUE,
            attempts=1,
            first_at=NOW,
            last_at=NOW,
            due_at=NOW,
            milliseconds=1,
            result="x",
        )
        queued = ProcessingState.QUEUED
        RecordProgress(lease, OWNER, (step,), (), None, queued, NOW, keep=False)(queue.connection)
        queue.connection.exec_driver_sql("UPDATE steps SET outcome = 'puzzled'")
        assert set(queue.take(NOW + LEASE)) == {"a"}
        state = select(processing.c.state).where(processing.c.message_id == "m")
        assert queue.connection.execute(state).scalar_one() == "held"


def test_suspects_of_paused_and_blocked_destinations_wait():
    from sendback.store.outbox.destinations import PauseDestination

    for queue in opened(OutboxQueue):
        queue.add("m")
        now = NOW
        for _ in range(2):
            now = die(queue, "m", now)
        PauseDestination("m.example", True, now)(queue.connection)
        assert not queue.has_suspects(now)
        assert queue.suspect(now) is None
        PauseDestination("m.example", False, now)(queue.connection)
        assert queue.name(queue.suspect(now)) == "m"


def test_dropping_does_not_change_leased_messages():
    def drop(queue, now, *ids):
        unit = DropProcessing(ACCOUNT, ids, now, "by hand")
        return unit(queue.connection)

    for queue in opened(ProcessingQueue):
        queue.add("taken", "free", "held")
        leases = queue.take(NOW)
        queue.give_back(leases["free"], NOW + LEASE)
        queue.fail(leases["held"], NOW, final=True)
        assert drop(queue, NOW, "taken", "free", "held") == 2
        assert queue.show("taken")[0] == "queued"
        assert queue.show("free") == queue.show("held") == ("dropped", "by hand")
        # The lease has ended: the message is dropped, and a late result of its worker is refused.
        assert drop(queue, NOW + LEASE, "taken") == 1
        assert not queue.record(leases["taken"], NOW)


@pytest.mark.fuzz
@pytest.mark.parametrize("kind", [ProcessingQueue, OutboxQueue])
@given(
    st.lists(st.tuples(st.sampled_from(["crash", "work", "stop"]), st.integers(1, 8)), max_size=30),
    st.integers(0, 3),
)
def test_only_the_row_that_kills_its_worker_is_set_aside(kind, events, guilty):
    """The guilty row kills its worker at each try.

    With up to two deaths of workers for other reasons, only the guilty row is held in the end, and
    all others are done.
    """
    for queue in opened(kind):
        names = [f"r{number}" for number in range(8)]
        queue.add(*names)
        play = Play(queue, names[guilty])
        deaths = 0
        for event, number in events:
            if event == "crash":
                deaths += 1
                if deaths > 2:
                    continue
            getattr(play, event)(number)
        for _ in range(60):
            play.work(8)
        states = {name: queue.show(name)[0] for name in names}
        expected = dict.fromkeys(names, "delivered" if kind is OutboxQueue else "done")
        assert states == {**expected, names[guilty]: "held"}


class Play:
    """One process: when it dies, all its leases end without a result."""

    def __init__(self, queue, guilty):
        self.queue, self.guilty, self.now = queue, guilty, NOW

    def _take(self, number):
        self.now += timedelta(seconds=200)
        leases = list(self.queue.take(self.now, number).values())
        suspect = self.queue.suspect(self.now)
        return leases + ([suspect] if suspect else [])

    def work(self, number):
        """Record a result of each row in the order of leasing, up to the guilty one."""
        for lease in self._take(number):
            if self.queue.name(lease) == self.guilty:
                return
            self.queue.record(lease, self.now, done=True)

    def crash(self, number):
        """Lease rows and record nothing: the process is killed from outside."""
        self._take(number)

    def stop(self, number):
        """A clean shutdown."""
        for lease in self._take(number):
            self.queue.release(lease, self.now)
