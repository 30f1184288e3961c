"""The order in which units of work take their locks, and what they leave for the end of a group."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from sqlalchemy import create_engine, text

from sendback.store.engine.locking import (
    Place,
    add_missing,
    end_of_group,
    group,
    lock_free,
    put_row,
    transactions_of,
    try_lock_name,
)
from sendback.store.engine.tables import installation, metadata


@pytest.fixture
def connection():
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as found:
        yield found
    engine.dispose()


class Outbox:
    place: ClassVar = Place.OUTBOX


class Calls:
    place: ClassVar = Place.CALLS


class Anything:
    pass


def test_units_with_a_place_share_a_transaction_and_any_other_has_its_own():
    jobs = [(Anything(), 1), (Outbox(), 2), (Anything(), 3), (Calls(), 4)]
    assert transactions_of(jobs) == [[2, 4], [1], [3]]
    assert transactions_of([(Anything(), 1)]) == [[1]]
    assert transactions_of([(lambda connection: None, 1), (Calls(), 2)]) == [[2], [1]]


@dataclass
class Names:
    """What is left for the end: names, each settled once."""

    settled: ClassVar[list[list[str]]] = []
    names: set[str] = field(default_factory=set)

    def settle(self, connection):
        connection.execute(text("SELECT 1"))
        self.settled.append(sorted(self.names))


@pytest.fixture(autouse=True)
def nothing_settled():
    Names.settled.clear()


def test_what_is_left_for_the_end_of_a_group_is_done_once(connection):
    with group(connection):
        for names in ({"b"}, {"a", "b"}):
            with end_of_group(connection, Names) as end:
                end.names |= names
        assert Names.settled == []
    assert Names.settled == [["a", "b"]]


def test_outside_of_a_group_it_is_done_at_once(connection):
    for name in ("b", "a"):
        with end_of_group(connection, Names) as end:
            end.names.add(name)
    assert Names.settled == [["b"], ["a"]]


def test_a_group_that_fails_leaves_nothing_for_the_next(connection):
    def fail():
        with group(connection), end_of_group(connection, Names) as end:
            end.names.add("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with group(connection):
        pass
    assert Names.settled == []


def test_rows_are_added_once_and_replaced(connection):
    column = installation.c.name
    rows = [{"name": name, "value": "1"} for name in ("a", "b")]
    assert sorted(row.name for row in add_missing(connection, installation, rows, column)) == [
        "a",
        "b",
    ]
    assert add_missing(connection, installation, rows, column) == []
    put_row(connection, installation, {"name": "a"}, {"value": "2"})
    put_row(connection, installation, {"name": "c"}, {"value": "3"})
    found = connection.execute(text("SELECT name, value FROM installation ORDER BY name")).all()
    assert found == [("a", "2"), ("b", "1"), ("c", "3")]


def test_sqlite_has_no_locks_to_take(connection):
    assert try_lock_name(connection, "x")
    assert lock_free(connection, installation.c.name, ["a"]) == ["a"]
