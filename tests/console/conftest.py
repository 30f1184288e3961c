"""The console of a server that captures and receives for example.com."""

import pytest

from tests.partners.console import ConsoleClient
from tests.partners.server import Server


@pytest.fixture
def console(server: Server) -> ConsoleClient:
    """A browser without JavaScript at the server of the fixture `server`."""
    return ConsoleClient(server.endpoint)
