"""Places of a server, shared by network: who is closed for whom."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from sendback.fairness import Admission, ConnectionRegister, OctetBudget

MIN_IDLE = 5.0


def full_of(*networks, limit=None, network_limit=100):
    """A register with one connection for each name, made a second apart: 0, 1, 2, …"""
    register = ConnectionRegister[int](limit or len(networks), network_limit, MIN_IDLE)
    for number, network in enumerate(networks):
        assert register.admit(number, network, float(number)) == Admission(admitted=True)
    return register


def test_free_places_cost_nobody_anything():
    register = full_of("a", "a", "b", limit=4)
    assert register.admit(3, "a", 3.0) == Admission(admitted=True)
    assert (len(register), register.size_of("a"), register.fullness) == (4, 3, 1.0)


def test_the_largest_network_loses_its_longest_idle_connection():
    register = full_of("a", "b", "a", "a")
    assert register.admit(4, "c", 4.0) == Admission(admitted=True, close=0)
    assert (register.size_of("a"), register.size_of("c"), len(register)) == (2, 1, 4)
    assert 0 not in register


def test_activity_counts_not_age():
    register = full_of("a", "a", "a", "b")
    register.active(0, 10.0)
    assert register.admit(4, "c", 10.0).close == 1


def test_of_networks_of_one_size_the_one_with_the_longest_idle_connection_loses_it():
    register = full_of("a", "a", "b", "b", "c", limit=5)
    register.active(0, 10.0)
    register.active(1, 11.0)
    assert register.admit(5, "d", 12.0).close == 2


def test_ten_networks_cannot_hold_all_places():
    register = full_of(*(f"attacker{number % 10}" for number in range(1000)), limit=1000)
    for number in range(1000, 1050):  # every attacker sends something all the time
        assert register.admit(number, f"client{number}", 1000.0).admitted
    assert all(register.size_of(f"client{number}") == 1 for number in range(1000, 1050))


def test_the_largest_network_replaces_only_its_own_idle_connections():
    register = full_of("b", "a", "a", "a")
    assert register.admit(4, "a", 4.0) == Admission(admitted=False)
    assert register.admit(4, "a", 6.0) == Admission(admitted=True, close=1)
    assert register.size_of("b") == 1


def test_at_its_own_limit_too():
    register = full_of("a", "a", "b", limit=10, network_limit=2)
    assert register.admit(3, "a", 3.0) == Admission(admitted=False)
    assert register.admit(3, "b", 3.0) == Admission(admitted=True)
    assert register.admit(4, "a", 5.0) == Admission(admitted=True, close=0)


def test_a_server_full_of_active_clients_refuses_and_of_idle_ones_does_not():
    register = full_of("a", "b", "c", "d")
    assert register.admit(4, "e", 4.0) == Admission(admitted=False)
    assert register.admit(4, "e", 5.0) == Admission(admitted=True, close=0)


def test_who_waits_for_the_server_is_not_closed():
    register = full_of("a", "a", "a", "b")
    for connection in (0, 1, 2):
        register.protect(connection)
    register.active(0, 3.5)  # octets that came early change nothing
    assert register.admit(4, "c", 4.0) == Admission(admitted=False)
    register.release(1, 4.5)
    assert register.admit(4, "c", 5.0) == Admission(admitted=True, close=1)


def test_who_has_ended_is_forgotten():
    register = full_of("a", "b")
    register.remove(0)
    register.remove(0)
    register.active(0, 2.0)
    register.release(0, 2.0)
    assert (len(register), register.size_of("a"), 0 in register) == (1, 0, False)
    assert register.admit(2, "c", 2.0) == Admission(admitted=True)


# --- against a model that is as slow as it is simple ------------------------------------------


@dataclass
class Model:
    limit: int
    network_limit: int
    network: dict[int, str] = field(default_factory=dict)
    at: dict[int, float] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)  # by last activity
    held: set[int] = field(default_factory=set)

    def size(self, name):
        return sum(1 for other in self.network.values() if other == name)

    def idle(self, name=None):
        return [
            each
            for each in self.order
            if each not in self.held and name in (None, self.network[each])
        ]

    def touch(self, connection, now):
        self.at[connection] = now
        self.order = [each for each in self.order if each != connection] + [connection]

    def admit(self, connection, name, now):
        if self.size(name) >= self.network_limit:
            victims = self.old(self.idle(name), now)
        elif len(self.network) >= self.limit:
            victims = self.victims(name, now)
        else:
            self.network[connection] = name
            self.touch(connection, now)
            return Admission(admitted=True)
        if not victims:
            return Admission(admitted=False)
        self.remove(victims[0])
        self.network[connection] = name
        self.touch(connection, now)
        return Admission(admitted=True, close=victims[0])

    def victims(self, name, now):
        share = max(self.limit / len({*self.network.values(), name}), 1)
        if self.size(name) >= share:
            return self.old(self.idle(name), now)
        above = [each for each in self.idle() if self.size(self.network[each]) > share]
        above.sort(key=lambda each: -self.size(self.network[each]))  # stable: longest idle first
        return above or self.old(self.idle(), now)

    def old(self, connections, now):
        return [each for each in connections if now - self.at[each] >= MIN_IDLE]

    def remove(self, connection):
        self.network.pop(connection, None)
        self.held.discard(connection)
        self.order = [each for each in self.order if each != connection]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "admit", "active", "hold", "release", "remove"]),
        st.sampled_from("aaaabbc"),
        st.integers(0, 30),
        st.sampled_from([0.0, 0.5, 3.0]),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 8), st.integers(1, 5))
def test_it_does_what_the_model_does(steps, limit, network_limit):
    register = ConnectionRegister[int](limit, network_limit, MIN_IDLE)
    model = Model(limit, network_limit)
    now = 0.0
    for number, (step, name, pick, pause) in enumerate(steps, 100):
        now += pause
        known = list(model.network)
        chosen = known[pick % len(known)] if known else -1
        if step == "admit":
            assert register.admit(number, name, now) == model.admit(number, name, now)
        elif step == "remove":
            register.remove(chosen)
            model.remove(chosen)
        elif step == "hold":
            register.protect(chosen)
            model.held |= {chosen} & model.network.keys()
        elif step == "release":
            register.release(chosen, now)
            if chosen in model.held:
                model.held.discard(chosen)
                model.touch(chosen, now)
        else:
            register.active(chosen, now)
            if chosen in model.network and chosen not in model.held:
                model.touch(chosen, now)
        assert len(register) == len(model.network) <= limit
        assert all(register.size_of(name) == model.size(name) for name in "abc")
        assert all(register.size_of(name) <= network_limit for name in "abc")


@given(
    st.lists(st.sampled_from("aab"), min_size=12, max_size=12),
    st.lists(st.sampled_from("abc"), max_size=40),
)
def test_a_network_below_its_share_gets_a_place_and_keeps_it(first, newcomers):
    """However many connections others make: no active connection of a third is closed."""
    register = ConnectionRegister[int](12, 12, MIN_IDLE)
    for number, name in enumerate(first):
        register.admit(number, name, 0.0)
    own = set()
    for number, name in enumerate(newcomers, 100):
        admission = register.admit(number, name, 1.0)
        if name == "c" and len(own) < 12 / 3:
            assert admission.admitted
            own.add(number)
        assert admission.close not in own


# --- octets -----------------------------------------------------------------------------------


def test_the_largest_holder_of_the_largest_network_is_closed():
    budget = OctetBudget[str](100)
    assert budget.take("small", "a", 10) == []
    assert budget.take("large", "a", 30) == []
    assert budget.take("other", "b", 35) == []
    assert budget.take("large", "a", 20) == []
    assert budget.take("new", "c", 6) == ["large"]
    assert budget.total == 51


def test_who_holds_the_most_is_closed_itself():
    budget = OctetBudget[str](100)
    budget.take("a", "a", 40)
    assert budget.take("b", "b", 61) == ["b"]
    assert budget.total == 40
    assert budget.take("c", "c", 101) == ["c"]


def test_one_that_is_larger_than_all_makes_room_only_once():
    budget = OctetBudget[str](10)
    budget.take("a", "a", 5)
    budget.take("b", "b", 5)
    assert budget.take("a", "a", 1) == ["a"]
    budget.release("a")
    budget.release("b")
    assert budget.total == 0


def test_what_has_come_completely_is_kept():
    budget = OctetBudget[str](100)
    budget.take("large", "a", 80)
    budget.keep("large")
    assert budget.take("small", "b", 30) == ["small"]
    assert budget.take("small", "b", 20) == []
    budget.release("large")
    assert budget.total == 20
    assert budget.take("large", "a", 10) == []
    budget.keep("large")
    assert budget.take("large", "a", 80) == ["large"]  # its next part is not complete
    assert budget.total == 20


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "take", "keep", "release"]),
            st.integers(0, 9),
            st.sampled_from("abc"),
            st.integers(1, 60),
        )
    ),
    st.integers(1, 100),
)
def test_the_budget_holds_and_takes_from_the_largest(steps, limit):
    budget = OctetBudget[int](limit)
    held: dict[int, tuple[str, int]] = {}
    kept: dict[int, int] = {}
    for step, holder, network, octets in steps:
        if step == "release":
            budget.release(holder)
            held.pop(holder, None)
            kept.pop(holder, None)
        elif step == "keep":
            budget.keep(holder)
            if holder in held:
                kept[holder] = kept.get(holder, 0) + held.pop(holder)[1]
        else:
            name, before = held.get(holder, (network, 0))
            held[holder] = (name, before + octets + kept.pop(holder, 0))
            for closed in budget.take(holder, network, octets):
                sums: dict[str, int] = {}
                for each, count in held.values():
                    sums[each] = sums.get(each, 0) + count
                name, count = held.pop(closed)
                assert sums[name] == max(sums.values())
                assert all(n <= count for w, n in held.values() if w == name)
            assert budget.total <= limit
        assert budget.total == sum(n for _, n in held.values()) + sum(kept.values())
