"""A server for the tests of a module, empty for each of them, and a client of its API."""

import pytest

from sendback.testing import Sendback
from tests.inspection.api import Api
from tests.partners.postgresql import database_setting


@pytest.fixture(scope="module")
def running():
    with Sendback(**database_setting()) as server:
        yield server


@pytest.fixture
def server(running):
    running.reset()
    running.verify("example.com")
    return running


@pytest.fixture
def api(server):
    return Api(server.endpoint_url)
