"""Two whole stores on one PostgreSQL at once: what is promised of all nodes together."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from sendback.clock import to_milliseconds
from sendback.receipt.model import Rule, StopAction
from sendback.store.access.accounts import AddAccount
from sendback.store.bouncing.bounces import QueueBounce
from sendback.store.engine.errors import RateLimitedError
from sendback.store.engine.leasing import Term
from sendback.store.engine.store import Store, transact
from sendback.store.engine.tables import destinations, outbox
from sendback.store.outbox.control import ChangeState
from sendback.store.outbox.destinations import Block, ForgetDestinations, PauseDestination
from sendback.store.outbox.queue import RecordAttempt, Requeue, TakeLeases, add_to_outbox
from sendback.store.outbox.rows import IS_TRUSTED, Attempt, OutboxState, Outcome
from sendback.store.rules.rule_sets import AddRuleSet, ChangeRules, FindRuleSet
from tests.conftest import NOW
from tests.partners.queue import ACCOUNT, a_bounce, is_recorded

LEASE = timedelta(seconds=30)
QUEUED, HELD = OutboxState.QUEUED, OutboxState.HELD


@pytest.fixture
def stores(url, tmp_path):
    found = [Store(url, tmp_path / str(number)) for number in range(2)]
    yield found
    for store in found:
        store.close()


def test_sixty_rules_that_two_nodes_add_are_all_there(stores):
    def add(name):
        return ChangeRules(
            ACCOUNT, "set", lambda rules: (*rules, Rule(name=name, actions=(StopAction(),))), NOW
        )

    async def story():
        await stores[0].write(AddRuleSet(ACCOUNT, "set", NOW, 9))
        names = [f"rule{number}" for number in range(60)]
        await asyncio.gather(
            *(stores[number % 2].write(add(name)) for number, name in enumerate(names))
        )
        found = await stores[0].read(FindRuleSet(ACCOUNT, "set"))
        assert sorted(rule.name for rule in found.rules) == sorted(names)

    asyncio.run(story())


def test_at_most_one_bounce_a_second_of_an_account_over_two_nodes(stores, race):
    """Each node tries all the time, for three accounts; the dates are those of the rows."""
    second = timedelta(seconds=1)
    names = [ACCOUNT, "2" * 12, "3" * 12]
    ends = datetime.now(UTC) + timedelta(seconds=4)

    async def send(number, store, account):
        sent = tries = 0
        while datetime.now(UTC) < ends:
            tries += 1
            name = f"{account}-{number}-{tries}"
            message = a_bounce(name, "x@a.example", datetime.now(UTC), account_id=account)
            try:
                await store.write(QueueBounce(message, None, second))
                sent += 1
            except RateLimitedError:
                await asyncio.sleep(0)
        return sent

    async def story():
        for account in names[1:]:
            await stores[0].write(AddAccount(account, NOW))
        workers = (send(n, store, name) for n, store in enumerate(stores) for name in names)
        return await asyncio.gather(*workers)

    assert sum(asyncio.run(story())) >= 9
    rows = race.query("SELECT account_id, created_at FROM outbox ORDER BY account_id, created_at")
    for account in names:
        dates = [date for owner, date in rows if owner == account]
        assert 3 <= len(dates) <= 5
        assert min(later - earlier for earlier, later in pairwise(dates)) >= 1000


def test_each_message_is_leased_by_one_node(stores):
    domains = [f"d{number}.example" for number in range(5)]
    names = [f"m{number}" for number in range(300)]

    def add(chosen):
        messages = [a_bounce(name, f"x@{domains[hash(name) % 5]}", NOW) for name in chosen]
        return lambda connection: add_to_outbox(connection, messages)

    async def work(owner, store):
        found = []
        while True:
            leases = await store.write(TakeLeases(Term(owner, NOW, NOW + LEASE), 7, 3, 1, {}))
            if not leases:
                return found
            for lease in leases:
                found.append(lease.message.message_id)
                attempt = Attempt(NOW, 1, Outcome.DELIVERED, "p", None, "250")
                done = RecordAttempt(lease, attempt, OutboxState.DELIVERED, NOW)
                await store.write(done)

    async def story():
        await asyncio.gather(stores[0].write(add(names[::2])), stores[1].write(add(names[1::2])))
        workers = (work(f"w{number}", stores[number % 2]) for number in range(4))
        found = await asyncio.gather(*workers)
        counts = Counter(name for names in found for name in names)
        assert counts == Counter(names)

    asyncio.run(story())


# --- destinations, whatever two nodes do ---------------------------------------------------------

STEPS = ["add", "take", "deliver", "retry", "block", "back", "wait", "pause", "hold", "forget"]
STEP = st.tuples(
    st.sampled_from(STEPS), st.sampled_from(["a.example", "b.example"]), st.integers(1, 3)
)


class Play:
    """The steps of one node, each a method that runs in a transaction of its own."""

    def __init__(self, owner):
        self.owner, self.now, self.held, self.added = owner, NOW, [], 0

    def step(self, name, domain, number):
        return lambda connection: getattr(self, name)(connection, domain, number)

    def add(self, connection, domain, number):
        self.added += number
        names = [f"{self.owner}{self.added - n}" for n in range(number)]
        add_to_outbox(connection, [a_bounce(name, f"x@{domain}", self.now) for name in names])

    def take(self, connection, _, number):
        term = Term(self.owner, self.now, self.now + LEASE)
        self.held += TakeLeases(term, number, 2, 2, {})(connection)

    def wait(self, _, __, number):
        self.now += timedelta(seconds=20 * number)

    def pause(self, connection, domain, number):
        PauseDestination(domain, number == 1, self.now)(connection)

    def forget(self, connection, _, __):
        ForgetDestinations(before=self.now)(connection)

    def hold(self, connection, domain, number):
        state, origin = (HELD, QUEUED) if number == 1 else (QUEUED, HELD)
        query = select(outbox.c.message_id).where(outbox.c.domain == domain)
        names = tuple(connection.execute(query).scalars())
        ChangeState(names, (origin,), state, self.now)(connection)

    def back(self, connection, _, __):
        for lease in self._next():
            Requeue(lease, self.now)(connection)

    def deliver(self, connection, _, __):
        self._record(connection, OutboxState.DELIVERED, self.now)

    def retry(self, connection, _, number):
        self._record(connection, QUEUED, self.now + timedelta(seconds=30 * number))

    def block(self, connection, _, number):
        until = self.now + timedelta(seconds=30 * number)
        self._record(connection, QUEUED, until, Block(number, until, "x"))

    def _record(self, connection, state, due_at, block=None):
        for lease in self._next():
            attempt = Attempt(self.now, 1, Outcome.TEMPORARY, "peer", None, "words")
            is_recorded(RecordAttempt(lease, attempt, state, due_at, block), connection)

    def _next(self):
        first, self.held = self.held[:1], self.held[1:]
        return first


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.tuples(STEP, STEP), max_size=12))
def test_no_destination_is_due_later_than_its_mail_on_two_nodes(race, steps):
    """After any steps of two nodes whose transactions overlap, all mail will be looked for."""
    for table in (outbox, destinations):
        race.run(lambda connection, table=table: connection.execute(delete(table)))
    one, two = Play("one"), Play("two")
    for first, second in steps:
        for found in race(one.step(*first), two.step(*second)):
            assert not isinstance(found, Exception)
        now = max(one.now, two.now)
        transact(race.url, lambda connection, now=now: check_dates(connection, now), writes=False)
    race.run(lambda connection: leave_nothing(connection, max(one.now, two.now)))


def check_dates(connection, now):
    """The date of a domain is at most the latest of its mail's, its block's end, and now."""
    rows = {row.domain: row for row in connection.execute(select(destinations))}
    query = select(outbox.c.domain, outbox.c.due_at).where(IS_TRUSTED)
    for domain, due_at in connection.execute(query):
        row = rows[domain]
        assert row.due_at is not None
        assert row.due_at <= max(due_at, row.blocked_until or 0, to_milliseconds(now))


def leave_nothing(connection, now):
    """A worker that only looks at destinations finds all mail in the end."""
    for domain in ("a.example", "b.example"):
        PauseDestination(domain, False, now)(connection)
    for _ in range(50):
        now += timedelta(hours=1)
        for lease in TakeLeases(Term("last", now, now + LEASE), 100, 100, 9, {})(connection):
            attempt = Attempt(now, 1, Outcome.DELIVERED, "peer", None, "250 ok")
            RecordAttempt(lease, attempt, OutboxState.DELIVERED, now)(connection)
    left = connection.execute(select(outbox.c.message_id).where(IS_TRUSTED)).all()
    assert left == []
