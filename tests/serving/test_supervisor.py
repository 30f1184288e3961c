"""Worker processes and their supervisor, as an operator meets them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.partners.clients import send_mail, ses
from tests.partners.sendback import Sendback, run_cli
from tests.partners.waiting import wait_for, wait_for_text
from tests.serving.processes import children, runs


def started(folder, *flags, environment=None):
    """A server of two workers that has been told to start; it may not serve yet."""
    command = [
        sys.executable, "-m", "sendback", "serve",
        "--http-listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0",
        "--data-dir", str(folder / "data"), "--ready-file", str(folder / "ready.json"), *flags,
    ]  # fmt: skip
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **(environment or {})}
        )


@pytest.fixture
def two_workers(tmp_path):
    with Sendback(tmp_path, ("--workers", "2")) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        yield server


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_with_exit_code_0(tmp_path, workers, number):
    server = Sendback(tmp_path, ("--workers", workers)).start()
    processes = children(server.process.pid)
    server.process.send_signal(number)
    assert server.process.wait(20) == 0
    assert not any(runs(process) for process in processes)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_at_any_moment_of_the_start_ends_it(tmp_path, workers):
    """Twenty moments, from the first line of Python to well behind the ready file.

    Before the command has begun, the interpreter ends by the signal itself.
    """
    for moment in range(20):
        folder = tmp_path / str(moment)
        folder.mkdir()
        process = started(folder, "--workers", workers)
        time.sleep(0.02 + moment * 0.09)
        processes = children(process.pid)
        process.send_signal(signal.SIGTERM)
        code = process.wait(20)
        log = (folder / "log").read_text()
        assert code == 0 or (code == -signal.SIGTERM and log == ""), (moment, code, log)
        assert "Traceback" not in log
        wait_for(lambda: not any(runs(each) for each in processes), seconds=5)  # noqa: B023


def test_signals_that_were_ignored_at_the_start_stay_ignored(tmp_path):
    """`nohup sendback serve &`."""
    command = ("nohup", sys.executable, "-m", "sendback", "serve", "--workers", "2")
    ready = tmp_path / "ready.json"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *command, "--http-listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0",
                "--data-dir", str(tmp_path / "data"), "--ready-file", str(ready),
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    try:
        wait_for(ready.exists, seconds=20)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        port = json.loads(ready.read_text())["smtp"]["port"]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            assert connection.recv(100).startswith(b"220")
    finally:
        process.terminate()
    assert process.wait(20) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_with_a_wrong_secret_it_says_so_once_and_ends(tmp_path, workers):
    with Sendback(tmp_path) as server:
        data_dir = server.data_dir
    code = run_cli(
        "serve", "--workers", workers, "--data-dir", str(data_dir),
        "--http-listen", "127.0.0.1:0", "--smtp-listen", "127.0.0.1:0",
        check=False, environment={"SENDBACK_SECRET": "ab" * 32},
    )  # fmt: skip
    assert code.returncode == 1
    assert code.stderr.count("sealed with another secret") == 1
    assert "Sendback serves" not in code.stdout
    assert "Traceback" not in code.stderr


def test_a_worker_that_cannot_serve_at_the_first_start_ends_everything(tmp_path):
    """Here the workers may open fewer files than they need; the supervisor needs none of those."""
    limit = f"ulimit -n 20; exec {sys.executable} -m sendback serve --workers 2"
    done = subprocess.run(
        [
            "bash", "-c", f"{limit} --http-listen 127.0.0.1:0 --smtp-listen 127.0.0.1:0 "
            f"--data-dir {tmp_path}/data --ready-file {tmp_path}/ready.json",
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert not (tmp_path / "ready.json").exists()
    assert "Sendback serves" not in done.stdout


@pytest.mark.parametrize("workers", ["1", "2"])
def test_kill_9_of_the_parent_leaves_nothing(tmp_path, workers):
    server = Sendback(tmp_path, ("--workers", workers)).start()
    processes = children(server.process.pid)
    assert len(processes) == (0 if workers == "1" else 2)
    ses(server.endpoint).verify_domain_identity(Domain="example.com")
    kept = send_mail(server.smtp_port)
    server.kill()
    wait_for(lambda: not any(runs(process) for process in processes), seconds=5)
    with server:  # on the same ports, in the same data directory
        assert [entry["message_id"] for entry in server.json("messages", "list")] == [kept]


def test_workers_end_with_a_parent_that_is_killed_while_they_start(tmp_path):
    process = started(tmp_path, "--workers", "2")
    wait_for(lambda: len(children(process.pid)) == 2, seconds=20)
    processes = children(process.pid)
    process.kill()
    process.wait()
    wait_for(lambda: not any(runs(each) for each in processes), seconds=5)
    assert not (tmp_path / "ready.json").exists()


def test_a_worker_that_hangs_does_not_survive_kill_9_of_the_parent(tmp_path):
    """It would hold the lock on the data directory: the next server could not start."""
    server = Sendback(tmp_path, ("--workers", "2")).start()
    processes = children(server.process.pid)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    server.kill()
    try:
        wait_for(lambda: not any(runs(process) for process in processes), seconds=5)
    finally:
        for process in filter(runs, processes):
            os.kill(process, signal.SIGKILL)
    with server:
        assert len(children(server.process.pid)) == 2


def test_functions_end_with_their_worker(tmp_path):
    """A local function's process reads its events from a pipe that ends with the worker."""
    function = tmp_path / "functions.py"
    function.write_text("def decide(event, context):\n    return {'disposition': 'CONTINUE'}\n")
    arn = "arn:aws:lambda:us-east-1:000000000000:function:decide"
    (tmp_path / "setup.toml").write_text(
        f"""
        active_rule_set = "main"
        functions = {{ "{arn}" = "python:{function}:decide" }}
        [[rule_sets.main.rules]]
        Name = "all"
        Actions = [
            {{ LambdaAction = {{ FunctionArn = "{arn}", InvocationType = "RequestResponse" }} }}
        ]
        """
    )
    server = Sendback(tmp_path, ("--workers", "2")).start()
    ses(server.endpoint).verify_domain_identity(Domain="example.com")
    server.run("rules", "apply", str(tmp_path / "setup.toml"))
    workers = children(server.process.pid)
    time.sleep(1.1)  # rules are remembered for a second
    send_mail(server.smtp_port)
    wait_for(lambda: [each for worker in workers for each in children(worker)], seconds=15)
    functions = [each for worker in workers for each in children(worker)]
    server.kill()
    wait_for(lambda: not any(runs(each) for each in [*workers, *functions]), seconds=5)


def test_a_worker_that_dies_is_replaced_and_the_wait_grows(two_workers):
    for wait in ("1 s", "2 s"):
        victim = children(two_workers.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        text = f"worker {victim} ended: killed by SIGKILL; starting another in"
        wait_for_text(lambda: two_workers.log, text)
        assert f"{text} {wait}" in two_workers.log or f"{text} 1 s" in two_workers.log
        # The other one serves meanwhile, and takes every connection.
        for _ in range(10):
            send_mail(two_workers.smtp_port)
        wait_for(lambda: len(children(two_workers.process.pid)) == 2, seconds=10)
    assert two_workers.stop() == 0


def test_a_worker_that_hangs_is_replaced_and_says_where_it_hung(tmp_path):
    with Sendback(tmp_path, ("--workers", "2"), {"SENDBACK_WORKER_TIMEOUT": "2s"}) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        hung, healthy = children(server.process.pid)
        os.kill(hung, signal.SIGSTOP)
        for _ in range(20):  # no connection waits for the one that hangs
            send_mail(server.smtp_port)
        wait_for_text(lambda: server.log, f"worker {hung} has hung for")
        wait_for_text(lambda: server.log, f"worker {hung} ended: it hung; starting another")
        wait_for(lambda: len(children(server.process.pid)) == 2, seconds=15)
        assert healthy in children(server.process.pid)
        assert server.stop() == 0


def test_sigusr1_writes_the_stacks_of_a_process_that_goes_on(tmp_path):
    with Sendback(tmp_path) as server:
        server.process.send_signal(signal.SIGUSR1)
        wait_for_text(lambda: server.log, "most recent call first")
        assert ses(server.endpoint).list_identities()["Identities"] == []


def test_a_pause_of_everything_is_no_hanging(tmp_path):
    """Ctrl-Z, `docker pause`: nobody is killed for what all were kept from doing."""
    with Sendback(tmp_path, ("--workers", "2"), {"SENDBACK_WORKER_TIMEOUT": "3s"}) as server:
        processes = children(server.process.pid)
        everything = [*processes, server.process.pid]
        for process in everything:
            os.kill(process, signal.SIGSTOP)
        time.sleep(7)
        for process in reversed(everything):
            os.kill(process, signal.SIGCONT)
        time.sleep(3)
        assert children(server.process.pid) == processes
        assert "paused" in server.log


def test_a_single_process_that_is_stopped_by_ctrl_z_goes_on(tmp_path):
    with Sendback(tmp_path, (), {"SENDBACK_WORKER_TIMEOUT": "2s"}) as server:
        server.process.send_signal(signal.SIGTSTP)
        time.sleep(4)
        server.process.send_signal(signal.SIGCONT)
        time.sleep(1)
        assert ses(server.endpoint).list_identities()["Identities"] == []


def test_a_single_process_that_hangs_says_where_and_ends(tmp_path):
    server = Sendback(tmp_path, (), {"SENDBACK_WORKER_TIMEOUT": "2s"}).start()
    # Suspended is like hanging, until it continues: then its event loop may restart the timer
    # before that expires (so it is suspended again), and its threads run while their stacks are
    # read, which may end the process by SIGSEGV instead.
    deadline = time.monotonic() + 60
    while server.process.poll() is None:
        assert time.monotonic() < deadline
        os.kill(server.process.pid, signal.SIGSTOP)
        time.sleep(3)
        os.kill(server.process.pid, signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(1)
    assert server.process.returncode in {1, -signal.SIGSEGV}
    assert "Timeout (0:00:02)!" in server.log
