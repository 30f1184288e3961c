"""What the benchmarks measured, in a file from which `bench.plots` draws."""

import json
from pathlib import Path
from typing import Any

FILE = Path("build/bench.json")


def record(name: str, value: Any) -> None:
    """Keep the figures of one benchmark; those of earlier runs of it are replaced."""
    found = load()
    found[name] = value
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(found, indent=1))


def load() -> dict[str, Any]:
    """Return what was recorded, by name."""
    found: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found
