"""A full disk, for real: a file system of a few megabytes."""

import os
import subprocess

import pytest

from tests.conftest import need
from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.sendback import Sendback


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


@pytest.mark.parametrize("size", [3_000, 400_000])
def test_a_full_disk_is_452_and_recovers_by_itself(small_disk, size):
    content = MAIL + (b"x" * 98 + b"\r\n") * (size // 100)
    with Sendback(small_disk) as server:
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
                assert "4.3.1" in str(error)
                refusals += 1
        assert refusals
        filler.unlink()
        kept.append(send_mail(server.smtp_port, content=content))
        listed = {message["message_id"] for message in server.json("messages", "list", "-n", "999")}
    assert listed == set(kept)
