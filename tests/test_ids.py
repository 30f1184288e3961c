"""The IDs of messages and requests: their forms, their order, and that none is given twice."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sendback.clock import to_milliseconds
from sendback.ids import RandomIds
from tests.conftest import NOW

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
DATES = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(DATES)
def test_the_id_of_a_received_message_begins_with_its_date(now):
    made = RandomIds().received_message(now)
    assert re.fullmatch("[0-9a-v]{40}", made)
    assert int(made, 32) >> 152 == to_milliseconds(now)


@given(st.lists(DATES, min_size=2))
def test_ids_sort_by_time(dates):
    ids = RandomIds()
    in_time = sorted(dates, key=to_milliseconds)
    moments = [date for n, date in enumerate(in_time) if n == 0 or
               to_milliseconds(date) > to_milliseconds(in_time[n - 1])]  # fmt: skip
    for make in (ids.received_message, ids.outbound_message):
        made = [make(moment) for moment in moments]
        assert made == sorted(made)


def test_all_digits_are_random():
    ids = RandomIds()
    made = [ids.received_message(NOW) for _ in range(2000)]
    for position in range(10, 40):
        assert {one[position] for one in made} == set("0123456789abcdefghijklmnopqrstuv")


def test_the_forms_of_other_ids():
    ids = RandomIds()
    for _ in range(300):
        assert re.fullmatch(UUID4, ids.request())
        assert re.fullmatch(f"0100[0-9a-f]{{12}}-{UUID4}-000000", ids.outbound_message(NOW))
        assert re.fullmatch("=_[0-9a-f]{32}", ids.boundary())


def test_no_id_is_given_twice_to_any_thread():
    ids = RandomIds()
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: ids.request(), range(20_000)))
    assert len(set(made)) == len(made)


def test_a_forked_process_makes_other_ids():
    """The pool of random octets is there when the process forks."""
    ids = RandomIds()
    ids.request()
    moment = NOW + timedelta(seconds=1)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(ids.received_message(moment) for _ in range(90)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        theirs = pipe.read().split("\n")
    ours = [ids.received_message(moment) for _ in range(90)]
    assert len(theirs) == 90
    assert not set(ours) & set(theirs)
