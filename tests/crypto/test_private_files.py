"""Secrets, keys, mail and the database are readable by their owner only, and written whole."""

import os
import subprocess
import sys
import threading
import time

import pytest

from sendback.crypto.certificates import make_certificate
from sendback.crypto.private_files import create_private, keep_private
from sendback.crypto.sealing import Sealing
from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.sendback import Sendback


def mode(path):
    return path.stat().st_mode & 0o777


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_it_is_the_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        create_private(tmp_path / "new" / "key", b"secret")
    finally:
        os.umask(before)
    assert (tmp_path / "new/key").read_bytes() == b"secret"
    assert (mode(tmp_path / "new"), mode(tmp_path / "new/key")) == (0o700, 0o600)
    assert names(tmp_path / "new") == ["key"]


def test_of_many_at_once_one_wins_and_all_find_it(tmp_path):
    file = tmp_path / "key"
    contents = [f"{number}".encode() * 1000 for number in range(20)]
    threads = [threading.Thread(target=create_private, args=(file, c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_bytes() in contents
    assert names(tmp_path) == ["key"]


@pytest.mark.parametrize("name", ["secret.key", "tls.pem"])
def test_a_crash_in_the_middle_leaves_nothing_that_is_in_the_way(tmp_path, name):
    file = tmp_path / name
    for _ in range(2):
        script = (
            "import os, signal\n"
            "from pathlib import Path\n"
            "from sendback.crypto.private_files import create_private\n"
            "real = os.getpid()\n"
            "os.getpid = lambda: 7\n"  # as in a container, where each start has the same
            "os.fsync = lambda _: os.kill(real, signal.SIGKILL)\n"
            f"create_private(Path({str(file)!r}), b'half')\n"
        )
        done = subprocess.run([sys.executable, "-c", script])
        assert done.returncode == -9
    assert not file.exists()
    assert len(names(tmp_path)) == 2
    long_ago = time.time() - 3600
    for path in tmp_path.iterdir():
        os.utime(path, (long_ago, long_ago))
    if name == "secret.key":
        Sealing(file).seal(b"x", "y")
    else:
        make_certificate(file, "mx.example.com")
    assert names(tmp_path) == [name]
    assert mode(file) == 0o600


def test_a_server_in_an_open_directory_keeps_its_own_files_private(tmp_path):
    """The directory existed, with files that an earlier version had made for all to read."""
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    with Sendback(tmp_path) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        send_mail(server.smtp_port, content=MAIL + b"x" * 70 + (b"y" * 70 + b"\r\n") * 5000)
        made = {path: mode(path) for path in data.rglob("*")}
        assert len(made) >= 6
        assert all(not found & 0o077 for found in made.values()), made
        assert f"chmod 700 {data}" in server.log
        server.kill()
        for path in made:
            path.chmod(0o755 if path.is_dir() else 0o644)
        server.start()
        own = [path for path in made if path.parent == data]
        assert all(not mode(path) & 0o077 for path in own)
        assert mode(data) == 0o755  # that is the operator's to decide


def test_a_directory_that_others_can_enter_is_reported(tmp_path):
    tmp_path.chmod(0o700)
    assert keep_private(tmp_path, tmp_path / "sendback.db") == []
    tmp_path.chmod(0o701)
    (warning,) = keep_private(tmp_path, tmp_path / "sendback.db")
    assert f"chmod 700 {tmp_path}" in warning


def test_a_command_makes_private_files_too(tmp_path):
    place = Sendback(tmp_path)
    place.run("db", "create")
    place.run("keys", "create")
    made = list((tmp_path / "data").rglob("*"))
    assert {path.name for path in made} >= {"sendback.db", "secret.key"}
    assert all(not mode(path) & 0o077 for path in made)
