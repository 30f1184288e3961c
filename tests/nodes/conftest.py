"""Nodes: servers with data directories of their own on one PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.partners.postgresql import binaries, shared_server
from tests.partners.sendback import Sendback

SECRET = "5e" * 32


@pytest.fixture
def database() -> str:
    """The URL of a new database."""
    need("PostgreSQL", available=binaries() is not None)
    return shared_server().create()


@pytest.fixture
def nodes(tmp_path: Path, database: str) -> Iterator[Callable[..., Sendback]]:
    """Starts nodes on the database, with the same secret."""
    started: list[Sendback] = []

    def start(*flags: str, **environment: str) -> Sendback:
        folder = tmp_path / f"node{len(started)}"
        folder.mkdir()
        settings = {"SENDBACK_DATABASE": database, "SENDBACK_SECRET": SECRET, **environment}
        node = Sendback(folder, flags, settings)
        started.append(node)
        return node.start()

    yield start
    for node in started:
        node.stop()
