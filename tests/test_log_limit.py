"""A flood of events becomes a few lines that say how many there were."""

from hypothesis import given
from hypothesis import strategies as st

from sendback.log_limit import LogLimit


def test_a_source_has_one_line_a_second():
    limit = LogLimit()
    assert [limit.allow("a", 1.0 + step / 10) for step in range(10)] == [0, *[None] * 9]
    assert limit.allow("b", 1.95) == 9
    assert limit.allow("a", 2.0) == 0


def test_all_sources_together_have_ten():
    limit = LogLimit()
    allowed = [limit.allow(str(number), 5.5) for number in range(100)]
    assert allowed == [*[0] * 10, *[None] * 90]
    assert limit.allow("new", 6.0) == 90


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.floats(0, 0.4)), max_size=200))
def test_each_line_is_written_or_counted(events):
    limit, now, counted, suppressed = LogLimit(), 0.0, 0, 0
    seconds: dict[int, int] = {}
    for source, pause in events:
        now += pause
        found = limit.allow(source, now)
        if found is None:
            suppressed += 1
            continue
        counted += found
        seconds[int(now)] = seconds.get(int(now), 0) + 1
    assert counted <= suppressed
    assert all(lines <= 10 for lines in seconds.values())
