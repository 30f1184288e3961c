"""A second server on a data directory, and on a port."""

import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from sendback.config.settings import SettingError
from sendback.data_directory import LOCK_FILE, lock_data_directory
from tests.partners.clients import send_mail, ses
from tests.partners.sendback import Sendback, run_cli


def try_second(data_dir, *flags, environment=None, smtp="127.0.0.1:0"):
    return run_cli(
        "serve", "--data-dir", str(data_dir), "--http-listen", "127.0.0.1:0",
        "--smtp-listen", smtp, *flags, check=False, environment=environment,
    )  # fmt: skip


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_server_on_a_data_directory_is_told_who_has_it(tmp_path, workers):
    with Sendback(tmp_path, ("--workers", workers)) as first:
        second = try_second(first.data_dir)
        assert second.returncode == 2
        assert f"another server (process {first.process.pid}) uses" in second.stderr
        assert "share_data_dir" in second.stderr
        assert "Sendback serves" not in second.stdout
        ses(first.endpoint).verify_domain_identity(Domain="example.com")
        assert send_mail(first.smtp_port)  # the first one goes on
        first.run("messages", "list")  # commands need no lock


def test_several_share_it_when_all_say_so(tmp_path):
    shared = {"SENDBACK_SHARE_DATA_DIR": "true"}
    with Sendback(tmp_path, ("--workers", "2"), shared) as first:
        other = tmp_path / "other"
        other.mkdir()
        flags = ("--data-dir", str(first.data_dir))
        with Sendback(other, flags, shared) as second:
            ses(first.endpoint).verify_domain_identity(Domain="example.com")
            assert send_mail(second.smtp_port)
        assert try_second(first.data_dir).returncode == 2  # this one does not share


def test_the_next_server_waits_for_workers_that_are_just_ending(tmp_path):
    server = Sendback(tmp_path, ("--workers", "2")).start()
    server.kill()
    with server:  # at once, on the same directory and ports
        assert ses(server.endpoint).list_identities()["Identities"] == []


def test_the_lock_is_held_by_every_process_that_was_forked(tmp_path):
    descriptor = lock_data_directory(tmp_path, shared=False)
    child = os.fork()
    if child == 0:
        signal.pause()
    os.close(descriptor)
    try:
        with (tmp_path / LOCK_FILE).open() as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(lock_data_directory(tmp_path, shared=False))


def test_a_holder_that_is_gone_is_not_named(tmp_path):
    """Only its workers are left, which the lock file does not know."""
    held = lock_data_directory(tmp_path, shared=False)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    os.pwrite(held, f"{ended.pid}\n".encode().ljust(20), 0)
    with pytest.raises(SettingError, match="workers of a server that is gone"):
        lock_data_directory(tmp_path, shared=False)
    os.close(held)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_two_installations_never_share_a_port(tmp_path, workers):
    with Sendback(tmp_path, ("--workers", workers)) as first:
        second = try_second(
            tmp_path / "another", "--workers", workers, smtp=f"127.0.0.1:{first.smtp_port}"
        )
    assert second.returncode == 2
    assert f"setting smtp_listen = '127.0.0.1:{first.smtp_port}'" in second.stderr


def test_a_port_that_another_program_shares_is_not_joined(tmp_path):
    """SO_REUSEPORT on its side alone takes no share of ours."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        second = try_second(
            tmp_path / "data", "--workers", "2", smtp=f"127.0.0.1:{other.getsockname()[1]}"
        )
    assert second.returncode == 2
    assert "whose port is free" in second.stderr
