"""A flood of events becomes a few lines that say how many there were."""

from hypothesis import given
from hypothesis import strategies as st

from sendback.log_limits import LogLimiter


def test_a_key_has_one_line_a_second():
    limit = LogLimiter()
    assert [limit.check("a", 1.0 + step / 10) for step in range(10)] == ["", *[None] * 9]
    assert limit.check("b", 1.95) == " (9 lines like this were left out)"
    assert limit.check("a", 2.0) == ""


def test_all_keys_together_have_a_limit():
    limit = LogLimiter(10)
    allowed = [limit.check(str(number), 5.5) for number in range(100)]
    assert allowed == [*[""] * 10, *[None] * 90]
    assert limit.check("new", 6.0) == " (90 lines like this were left out)"


@given(st.lists(st.tuples(st.sampled_from("abcdefghijklmnop"), st.floats(0, 0.4)), max_size=200))
def test_each_line_is_written_or_counted(events):
    limit, now, counted, left_out = LogLimiter(10), 0.0, 0, 0
    seconds: dict[int, int] = {}
    for source, pause in events:
        now += pause
        found = limit.check(source, now)
        if found is None:
            left_out += 1
            continue
        counted += int(found.strip(" (").split()[0]) if found else 0
        seconds[int(now)] = seconds.get(int(now), 0) + 1
    assert counted <= left_out
    assert all(lines <= 10 for lines in seconds.values())
