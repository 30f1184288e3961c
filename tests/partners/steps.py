"""Counting the elementary steps of a piece of work: a measure that no busy machine changes.

A step is a line of Python that runs, a Python function that is called, or a function in C that is
called. What a function in C does inside is one step, so a bound on the size of what reaches it is
asserted beside the count. Of Sendback's own code alone, lines are counted.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import sendback

# Between twice (exactly linear) and four times (quadratic), nearer to twice.
LINEAR = 2.3
_PACKAGE = str(Path(sendback.__file__).parent)


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

    _watched(work, trace, profile)
    return count


def own_lines(work: Callable[[], object]) -> int:
    """Return how many lines of Sendback's own code the work runs."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "line":
            count += 1
        return trace

    _watched(work, trace, None)
    return count


def _watched(work: Callable[[], object], trace: Any, profile: Any) -> None:
    before = sys.gettrace(), sys.getprofile()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])


def assert_linear(work: Callable[[int], object], size: int) -> int:
    """Assert that the work of twice the size takes twice the steps; return those of `size`."""
    half, whole = steps(lambda: work(size // 2)), steps(lambda: work(size))
    assert whole <= LINEAR * half + 100, f"{half} steps for {size // 2}, {whole} for {size}"
    return whole


def assert_few_lines(
    call: Callable[[Any], Any], shape: Callable[[int], Any], size: int, per_unit: float
) -> None:
    """Assert that `call(shape(n))` runs lines in proportion to n, and few for each unit.

    `per_unit` bounds the lines for each unit of `size`. A quadratic call runs 256 times the lines
    for 16 times the input; the slack is for what does not depend on the size.
    """
    small = own_lines(lambda: call(shape(size // 16)))
    large = own_lines(lambda: call(shape(size)))
    assert large <= per_unit * size + 2000, f"{large} lines for {size}"
    assert large <= 18 * small + 2000, f"{small} lines for a sixteenth, {large} for all"
