"""What a server leaves behind: nothing, however it ends."""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from sendback.config.settings import SettingError
from sendback.testing import MailRefusedError, NotArrivedError, Sendback, ServerError


class Census:
    """Threads, open files, temporary directories and child processes."""

    def __init__(self):
        self.threads = set(threading.enumerate())
        self.files = self.open_files()
        self.directories = self.temporary()
        self.children = self.child_processes()

    @staticmethod
    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    @staticmethod
    def temporary():
        return set(Path(tempfile.gettempdir()).glob("sendback-*"))

    @staticmethod
    def child_processes():
        """Of this thread: other tests of this process have partners that go on."""
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    def check(self):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and set(threading.enumerate()) - self.threads:
            time.sleep(0.01)
        assert set(threading.enumerate()) - self.threads == set()
        assert self.open_files() <= self.files
        assert self.temporary() - self.directories == set()
        assert self.child_processes() - self.children == set()


@pytest.fixture
def census(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Sendback():  # libraries open files of their own the first time
        pass
    found = Census()
    yield found
    found.check()


def test_after_normal_use(census):
    with Sendback() as server:
        server.verify("example.com")
        server.receive(recipients="bob@example.com")


def test_after_an_exception(census):
    with pytest.raises(LookupError), Sendback() as server:
        raise LookupError(server.endpoint_url)


def test_after_refused_mail_and_a_wait_in_vain(census):
    with Sendback() as server:
        with pytest.raises(MailRefusedError):
            server.receive(recipients="bob@example.com")
        with pytest.raises(NotArrivedError):
            server.bounces.wait_for(timeout=0.01)


def test_after_a_port_that_is_taken(census):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingError, match="whose port is free"):
            Sendback(smtp_listen=address).start()


def test_after_a_local_function(census, tmp_path):
    (tmp_path / "f.py").write_text("def handler(event, context):\n    return None\n")
    arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
    with Sendback() as server:
        server.apply(
            {
                "identities": ["example.com"],
                "functions": {arn: f"python:{tmp_path}/f.py:handler"},
            }
        )
        action = {"FunctionArn": arn, "InvocationType": "RequestResponse"}
        server.rules({"Actions": [{"LambdaAction": action}]})
        received = server.receive(recipients="bob@example.com")
        mail = server.received.wait_for(message_id=received, processed=True)
        assert [step.outcome for step in mail.steps] == ["done"]


def test_a_function_that_does_not_end_is_named(census, monkeypatch):
    monkeypatch.setattr("sendback.testing.recorders.JOIN_SECONDS", 0.1)
    released = threading.Event()
    server = Sendback().start()
    server.verify("example.com")
    function = server.function("endless", lambda event, context: released.wait(20))
    action = {"FunctionArn": function.arn, "InvocationType": "Event"}
    server.rules({"Actions": [{"LambdaAction": action}]})
    server.receive(recipients="bob@example.com")
    deadline = time.monotonic() + 5
    names = set()
    while function.arn not in names and time.monotonic() < deadline:
        names = {thread.name for thread in threading.enumerate()}
    with pytest.raises(ServerError, match=r"functions that do not end: .*function:endless"):
        server.stop()
    released.set()


def test_after_a_fork(census):
    with Sendback() as server:
        reader, writer = os.pipe()
        child = os.fork()
        if not child:  # what a child says comes back by the pipe
            try:
                server.verify("example.com")
            except ServerError as error:
                os.write(writer, str(error).encode())
            server.stop()
            os._exit(0)
        os.close(writer)
        assert os.waitpid(child, 0)[1] == 0
        with os.fdopen(reader) as answer:
            assert "is a child of it" in answer.read()
        server.verify("example.com")  # the parent's server is not harmed
        server.receive(recipients="bob@example.com")


INTERRUPTED = """
import os, signal, sys, threading, time
from sendback.testing import Sendback
import sendback.testing.server as module
create = module.{where}
def late(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    return create(*arguments, **options)
module.{where} = late
try:
    Sendback().start()
except KeyboardInterrupt:
    left = [thread.name for thread in threading.enumerate()][1:]
    print("left:", left, os.listdir(os.environ["TMPDIR"]))
"""


@pytest.mark.parametrize("where", ["bind", "prepare_schema", "check_settings", "_TestingApp"])
def test_after_an_interrupt_during_the_start(tmp_path, where):
    program = INTERRUPTED.format(where=where)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert run.stdout == "left: [] []\n", run.stderr


def test_a_process_that_ends_without_stop(tmp_path):
    program = "from sendback.testing import Sendback\nprint(Sendback().start().endpoint_url)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
    )
    assert run.stdout.startswith("http://127.0.0.1:")
    assert list(tmp_path.iterdir()) == []
