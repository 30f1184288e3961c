import pytest


@pytest.fixture
def receiver(running):
    """Starts servers that receive for example.com."""

    def start(**flags):
        server = running(**flags)
        server.ses.verify_domain_identity(Domain="example.com")
        return server

    return start
