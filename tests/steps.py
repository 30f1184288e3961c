"""Counts elementary steps: the lines of Sendback's own code that a call runs.

A time depends on the machine, a count does not: a test asserts that twice the input takes about
twice the steps. What a library's C code does within a line is not seen; what is handed to it is
cut or bounded by such lines.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import sendback

_PACKAGE = str(Path(sendback.__file__).parent)


def count_steps(call: Callable[[], Any]) -> int:
    """Return how many lines of the package the call ran."""
    steps = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return None
        if event == "line":
            steps += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return steps


def assert_linear(
    call: Callable[[Any], Any], shape: Callable[[int], Any], size: int, per_unit: float
) -> None:
    """Assert that `call(shape(n))` takes steps in proportion to n, and few for each unit.

    `per_unit` bounds the steps for each unit of `size`. A quadratic call takes 256 times the steps
    for 16 times the input; the slack is for what does not depend on the size.
    """
    small = count_steps(lambda: call(shape(size // 16)))
    large = count_steps(lambda: call(shape(size)))
    assert large <= per_unit * size + 2000, f"{large} steps for {size}"
    assert large <= 18 * small + 2000, f"{small} steps for a sixteenth, {large} for all"
