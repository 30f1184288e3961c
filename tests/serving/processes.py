"""What tests of real processes look at: children, and whether a process still runs."""

import subprocess
from pathlib import Path


def children(process: int) -> list[int]:
    """The processes that it has started and that have not been waited for."""
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True)
    return [int(number) for number in found.stdout.split()]


def runs(process: int) -> bool:
    """Whether it runs: a process that nobody has waited for yet has ended all the same."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in {"Z", "X"}
