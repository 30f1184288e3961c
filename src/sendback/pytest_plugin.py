"""Fixtures for pytest, which finds them by the entry point `pytest11`.

Nothing of the server is imported until a test uses a fixture.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from sendback.testing import Inbox, Sendback

# Variables that would take precedence over those of `sendback_env`.
_OTHERS = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "sendback(**settings): the settings of the fixture `sendback` in this test, such as "
        "send_bounce_rate=1",
    )


class _Servers:
    """The servers of a session, by their settings: starting one takes longer than a reset."""

    def __init__(self) -> None:
        self._started: dict[tuple[tuple[str, str], ...], Sendback] = {}

    def get(self, settings: Mapping[str, Any]) -> Sendback:
        """Return an empty server with these settings."""
        from sendback.testing import Sendback  # noqa: PLC0415 - see above

        key = tuple(sorted((name, str(value)) for name, value in settings.items()))
        found = self._started.get(key)
        if found is None or not found.is_running:  # a test may have stopped it
            found = self._started[key] = Sendback(**settings).start()
        return found

    def stop(self) -> None:
        for server in self._started.values():
            server.stop()


@pytest.fixture(scope="session")
def sendback_settings() -> Mapping[str, Any]:
    """The settings of all tests' servers: override it in `conftest.py`."""
    return {}


@pytest.fixture(scope="session")
def _sendback_servers() -> Iterator[_Servers]:
    servers = _Servers()
    yield servers
    servers.stop()


@pytest.fixture
def sendback(
    request: pytest.FixtureRequest,
    _sendback_servers: _Servers,
    sendback_settings: Mapping[str, Any],
) -> Iterator[Sendback]:
    """An empty `sendback.testing.Sendback` server, with the settings of the test's marker."""
    settings = dict(sendback_settings)
    for marker in reversed(list(request.node.iter_markers("sendback"))):
        if marker.args:
            pytest.fail("the marker sendback takes settings by name: sendback(region='eu-west-1')")
        settings.update(marker.kwargs)
    server = _sendback_servers.get(settings)
    yield server
    if server.is_running:
        server.reset()


@pytest.fixture
def sendback_ses(sendback: Sendback) -> Any:
    """A boto3 client of the server's SES API."""
    return sendback.ses


@pytest.fixture
def sendback_env(sendback: Sendback, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The environment with which AWS SDKs use the server, in force during the test."""
    for name in _OTHERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in sendback.env.items():
        monkeypatch.setenv(name, value)
    # boto3's default session remembers the credentials that it has found.
    if "boto3" in sys.modules:
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    return sendback.env


@pytest.fixture
def sendback_inbox(sendback: Sendback) -> Inbox:
    """An address for this test alone that receives mail."""
    return sendback.inbox()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001 - the hook's signature
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what is on the server to the report of a test that failed."""
    report = yield
    server = getattr(item, "funcargs", {}).get("sendback")
    if report.when == "call" and report.failed and server is not None:
        report.sections.append(("Sendback", _described(server)))
    return report


def _described(server: Sendback) -> str:
    try:
        return server.describe()
    except Exception as error:  # noqa: BLE001 - the report of the test matters more
        return f"the server cannot be asked: {error!r}"
