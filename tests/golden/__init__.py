"""Golden files: what goes over the wire, readable in review.

`UPDATE_GOLDEN=1 make test` writes them anew; the difference is then reviewed like any other.
"""

import os
from pathlib import Path

FOLDER = Path(__file__).parent


def check_golden(name: str, content: bytes) -> None:
    """Compares byte for byte."""
    file = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    assert file.read_bytes() == content, f"{name} has changed; see tests/golden/__init__.py"
