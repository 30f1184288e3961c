from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from sendback.service.queues.retry import Backoff
from tests.conftest import NOW

BACKOFF = Backoff(timedelta(seconds=60), timedelta(hours=4))


def test_the_first_retry_comes_after_about_a_minute():
    assert BACKOFF.wait(1, 0.0) == timedelta(seconds=48)
    assert BACKOFF.wait(1, 0.5) == timedelta(seconds=60)
    assert BACKOFF.wait(1, 1.0) == timedelta(seconds=72)


def test_each_wait_is_twice_the_one_before_up_to_the_longest():
    waits = [BACKOFF.wait(attempts, 0.5) for attempts in range(1, 12)]
    assert [wait.total_seconds() / 60 for wait in waits] == [
        1, 2, 4, 8, 16, 32, 64, 128, 240, 240, 240,
    ]  # fmt: skip


@given(st.integers(1, 10**6), st.floats(0, 1), st.integers(0, 10**6))
def test_a_message_is_never_tried_after_it_has_expired(attempts, jitter, seconds):
    expires = NOW + timedelta(seconds=seconds)
    moment = BACKOFF.next_try(attempts, NOW, expires, jitter)
    assert moment is None or NOW < moment <= expires
