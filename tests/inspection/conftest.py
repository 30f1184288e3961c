"""A server for the tests of a module, empty for each of them, and a client of its API."""

import pytest

from sendback.testing import Sendback
from tests.inspection.api import Api


@pytest.fixture(scope="module")
def running():
    with Sendback() as server:
        yield server


@pytest.fixture
def server(running):
    running.reset()
    running.verify("example.com")
    return running


@pytest.fixture
def api(server):
    return Api(server.endpoint_url)
