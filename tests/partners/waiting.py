"""Waiting for what another thread or process does, with an end to the patience."""

import contextlib
import socket
import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Returns once the condition holds; fails the test when it does not in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def wait_for_text(read: Callable[[], str], text: str, seconds: float = 20.0) -> str:
    """Answers what is read once the text stands in it."""
    deadline = time.monotonic() + seconds
    while text not in (found := read()):
        assert time.monotonic() < deadline, f"{text!r} did not come:\n{found}"
        time.sleep(0.05)
    return found


def wait_for_port(host: str, port: int, log: Callable[[], str], seconds: float = 20.0) -> None:
    """Returns once somebody listens there; what they had to say is in the error."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), timeout=1).close()
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"nobody listens on {host}:{port}:\n{log()}")
        time.sleep(0.05)
