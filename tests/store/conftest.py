"""The object server of the tests of contents."""

import pytest

from tests.partners.object_server import CREDENTIALS
from tests.store.content_stores import objects


@pytest.fixture(scope="session")
def object_server(tmp_path_factory):
    with objects(tmp_path_factory.mktemp("objects")) as server:
        yield server


@pytest.fixture
def credentials(monkeypatch):
    """The usual variables, which obstore reads."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
