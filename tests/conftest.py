"""Fixtures that more than one folder of tests uses, and Hypothesis's profiles."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from sendback.clock import ManualClock
from tests.partners.object_server import CREDENTIALS, ObjectServer
from tests.partners.postgresql import binaries, dropping_databases, is_chosen
from tests.partners.server import Server

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", max_examples=200, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("fuzz", max_examples=20_000, deadline=None, suppress_health_check=_SLOW)
# The second run of the suite looks for what differs on PostgreSQL, where each example takes longer.
settings.register_profile("postgresql", max_examples=40, deadline=None, suppress_health_check=_SLOW)
_PROFILE = "postgresql" if is_chosen() else "default"
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", _PROFILE))

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def need(partner: str, *, available: bool) -> None:
    """Skips a test whose partner is not on this machine; in CI that is a failure."""
    if available:
        return
    if os.environ.get("CI"):
        pytest.fail(f"{partner} is not installed, and CI tests with it")
    pytest.skip(f"{partner} is not installed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is only for SQLite in a run on PostgreSQL, and all tests where that is missing."""
    if is_chosen():
        need("PostgreSQL", available=binaries() is not None)
    mark = item.get_closest_marker("sqlite")
    if mark is not None and is_chosen():
        pytest.skip(f"only with SQLite: {mark.args[0]}")


@pytest.fixture(autouse=True)
def _databases() -> Iterator[None]:
    with dropping_databases():
        yield


@pytest.fixture(scope="session")
def object_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """moto's S3 with a bucket for contents."""
    server = ObjectServer(tmp_path_factory.mktemp("objects")).start()
    yield server
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual variables of AWS, which content stores read."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def running(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[..., Server]]:
    """Starts whole servers in this process: real ports, a clock that the test moves."""
    started: list[Server] = []

    def start(**flags: Any) -> Server:
        defaults = {"dns": "system", "send_bounce_rate": "1"}  # those of `sendback serve`
        data_dir = tmp_path / f"data{len(started)}"
        server = Server(clock=clock, data_dir=data_dir, **{**defaults, **flags}).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def server(running: Callable[..., Server]) -> Server:
    """A capturing server without rate limit that receives for example.com."""
    instance = running(send_bounce_rate="0")
    instance.ses.verify_domain_identity(Domain="example.com")
    return instance
