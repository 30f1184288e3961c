"""Counting the elementary steps of a piece of work: a measure that no busy machine changes.

A step is a line of Python that runs, a Python function that is called, or a function in C that is
called. What a function in C does inside is one step, so a bound on the size of what reaches it is
asserted beside the count.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

# Between twice (exactly linear) and four times (quadratic), nearer to twice.
LINEAR = 2.3


def steps(work: Callable[[], object]) -> int:
    """Return how many steps the work takes in this thread. Its exceptions are the caller's."""
    count = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if event in {"line", "call"}:
            count += 1
        return trace

    def profile(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        if event == "c_call":
            count += 1

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return count


def assert_linear(work: Callable[[int], object], size: int) -> int:
    """Assert that the work of twice the size takes twice the steps; return those of `size`."""
    half, whole = steps(lambda: work(size // 2)), steps(lambda: work(size))
    assert whole <= LINEAR * half + 100, f"{half} steps for {size // 2}, {whole} for {size}"
    return whole
