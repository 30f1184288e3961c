"""How long a command takes to answer, a server to be ready, and what it takes of memory."""

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
