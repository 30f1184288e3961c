"""A full disk, for real: a file system of a few megabytes."""

import contextlib
import os
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from tests.conftest import need
from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.sendback import Sendback
from tests.partners.waiting import wait_for

pytestmark = pytest.mark.sqlite("it fills the disk of SQLite's file")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.geteuid() == 0 and (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder], capture_output=True
        ).returncode
        == 0
    )
    need("a file system of one's own (root)", available=mounted)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize(
    ("size", "store"), [(3_000, ""), (400_000, "directory"), (400_000, "database")]
)
def test_a_full_disk_refuses_mail_and_recovers_by_itself(small_disk, size, store):
    """452 4.3.1; the content store `database` reports any failure as 451 4.3.0."""
    content = MAIL + (b"x" * 98 + b"\r\n") * (size // 100)
    environment = {"SENDBACK_CONTENT_STORE": store}
    with Sendback(small_disk, environment=environment) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        kept = [send_mail(server.smtp_port, content=content)]
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        refusals = 0
        for _ in range(50):
            try:
                kept.append(send_mail(server.smtp_port, content=content))
            except AssertionError as error:
                assert "4.3.1" in str(error) or ("4.3.0" in str(error) and store == "database")
                refusals += 1
        assert refusals
        filler.unlink()
        kept.append(_accepted_within_five_seconds(server.smtp_port, content))
        listed = {message["message_id"] for message in server.json("messages", "list", "-n", "999")}
    assert listed == set(kept)


def _accepted_within_five_seconds(port: int, content: bytes) -> str:
    """After a failure the store tries again in growing steps of up to a second."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return send_mail(port, content=content)
        except AssertionError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_server_on_a_full_disk_is_not_ready(small_disk):
    with Sendback(small_disk) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        url = f"{server.endpoint}/readyz"
        assert _status_of(url) == 200
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        # The write-ahead log uses again what it has; mails fill it first.
        with contextlib.suppress(AssertionError):
            for _ in range(50):
                send_mail(server.smtp_port, content=MAIL + (b"x" * 98 + b"\r\n") * 2000)
        wait_for(lambda: _status_of(url) == 503)
        assert _status_of(f"{server.endpoint}/healthz") == 200
        filler.unlink()
        wait_for(lambda: _status_of(url) == 200)


def _status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
