"""Fixtures of the contract tests."""

import pytest


@pytest.fixture
def client(server):
    """boto3 without its own validation: what it would refuse is sent."""
    return server.ses_client(parameter_validation=False)
