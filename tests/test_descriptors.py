"""File descriptors: enough for the limits on connections, and HTTP takes none of SMTP's."""

import contextlib
import logging
import resource

import pytest

from sendback import descriptors
from sendback.config.loading import load
from tests.partners.clients import send_mail, ses
from tests.partners.raw_http import RawHttp, is_healthy
from tests.partners.sendback import Sendback


@pytest.fixture
def limits(monkeypatch):
    """The limits that the process seems to have."""
    held = {"limits": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: held["limits"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: held.update(limits=new))
    return held


SETTINGS = load({}, environ={}).settings
WANTED = 128 + 2 * 1000 + 200 + 2 * 50 + 500


@pytest.mark.parametrize(
    ("before", "soft", "places"),
    [
        ((1024, 4096), WANTED, 500),
        ((65536, 65536), 65536, 500),
        ((1024, resource.RLIM_INFINITY), WANTED, 500),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), resource.RLIM_INFINITY, 500),
        ((1024, 2700), 2700, 675),
        ((1024, 1024), 1024, 256),
        ((256, 256), 256, 64),
    ],
)
def test_the_soft_limit_is_raised_and_http_leaves_the_others_theirs(limits, before, soft, places):
    limits["limits"] = before
    descriptors.raise_limit(SETTINGS)
    assert limits["limits"] == (soft, before[1])
    assert descriptors.http_connections(SETTINGS) == min(500, places)


def test_a_limit_that_is_too_low_is_logged(limits, caplog):
    limits["limits"] = (1024, 1024)
    with caplog.at_level(logging.WARNING):
        descriptors.raise_limit(SETTINGS)
    assert "descriptors limit=1024 wanted=2928" in caplog.text


@pytest.fixture
def server(tmp_path):
    """A process that begins with the usual soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("needs 4,096 file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        instance = Sendback(tmp_path).start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    yield instance
    instance.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_idle_connections_of_one_address_shut_nobody_out(server):
    ses(server.endpoint).verify_domain_identity(Domain="example.com")
    with contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.enter_context(RawHttp(server.http_port, source="127.0.0.2"))
        send_mail(server.smtp_port)
        assert is_healthy(server.http_port)
        assert ses(server.endpoint).list_identities()["Identities"] == ["example.com"]
    assert "Too many open files" not in server.log
