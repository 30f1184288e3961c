"""How long a command, a server and a server for tests take to start, and a server's memory."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.partners.sendback import Sendback

from bench.common import ROUNDS, row


def main() -> None:
    print("Start")
    row("sendback --help", [_help() for _ in range(ROUNDS)], "ms")
    ready: list[float] = []
    memory: list[float] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            with Sendback(Path(folder)) as server:
                ready.append((time.perf_counter() - start) * 1000)
                time.sleep(1)
                memory.append(_resident_megabytes(server))
    row("serve ready, new data directory", ready, "ms")
    row("resident memory, idle", memory, "MB")
    _of_tests()


# Measured in a process of its own, as a session of pytest is one.
_IN_A_SESSION = """
import json, time
times = {}
def lap(name, since):
    times.setdefault(name, []).append((time.perf_counter() - since) * 1000)
    return time.perf_counter()
start = time.perf_counter()
from sendback.testing import Sendback
start = lap("import sendback.testing", start)
with Sendback() as server:
    lap("the first server is ready", start)
    for _ in range(20):
        server.verify("example.com")
        server.receive(recipients="bob@example.com")
        start = time.perf_counter()
        server.reset()
        lap("reset", start)
for _ in range(5):
    start = time.perf_counter()
    with Sendback() as server:
        start = lap("a later server is ready", start)
    lap("stop", start)
print(json.dumps(times))
"""
_HUNDRED_TESTS = """
import pytest

@pytest.mark.parametrize("number", range(100))
def test_it(sendback, number):
    sendback.verify("example.com")
    received = sendback.receive(recipients="bob@example.com")
    sendback.ses.send_bounce(
        OriginalMessageId=received,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}],
    )
    assert sendback.bounces.wait_for(original=received).dsn.statuses == ("5.1.1",)
"""


def _of_tests() -> None:
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", _IN_A_SESSION]
        answer = subprocess.run(command, check=True, capture_output=True)
        for name, some in json.loads(answer.stdout).items():
            times.setdefault(name, []).extend(some)
    for name, some in times.items():
        row(f"sendback.testing: {name}", some, "ms")
    row("100 tests on one core", [_hundred_tests() for _ in range(ROUNDS)], "s")


def _hundred_tests() -> float:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_it.py").write_text(_HUNDRED_TESTS)
        core = {min(os.sched_getaffinity(0))}
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", folder],
            check=True,
            capture_output=True,
            cwd=folder,
            preexec_fn=lambda: os.sched_setaffinity(0, core),
        )
        return time.perf_counter() - start


def _help() -> float:
    command = [str(Path(sys.executable).with_name("sendback")), "--help"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return (time.perf_counter() - start) * 1000


def _resident_megabytes(server: Sendback) -> float:
    if server.process is None:
        raise RuntimeError("not started")
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
