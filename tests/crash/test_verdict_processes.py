"""The processes that authenticate mail belong to their server: they start, end and die with it."""

import os
import signal
from pathlib import Path

import pytest

from tests.partners.clients import send_mail
from tests.partners.dns_server import DnsServer
from tests.partners.sendback import Sendback
from tests.partners.waiting import wait_for

SETUP = """
identities = ["example.com"]
active_rule_set = "main"
buckets = { mail = "directory:bucket" }
[[rule_sets.main.rules]]
Name = "all"
Actions = [{ S3Action = { BucketName = "mail" } }]
"""


@pytest.fixture(scope="module")
def dns():
    with DnsServer('sender.example. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"\n') as server:
        yield server


@pytest.fixture
def start(tmp_path, dns):
    servers = []

    def run(*flags, **environment):
        given = {"SENDBACK_DNS": dns.address, **environment}
        servers.append(Sendback(tmp_path, flags, given).start())
        (tmp_path / "setup.toml").write_text(SETUP)
        servers[0].run("rules", "apply", str(tmp_path / "setup.toml"))
        return servers[0]

    yield run
    for server in servers:
        server.kill()


def receive(server, count=1):
    """Mails that were stored, the last of them with the verdict of SPF that it says."""
    bucket = server.folder / "bucket"
    before = len(list(bucket.glob("[!.]*")))
    for _ in range(count):
        wait_for(lambda: accepted(server), 20)  # other workers see the rules within a second
    wait_for(lambda: len(list(bucket.glob("[!.]*"))) == before + count, 20)
    return max(bucket.glob("[!.]*"), key=lambda path: path.stat().st_mtime).read_bytes()


def accepted(server):
    try:
        return send_mail(server.smtp_port)
    except AssertionError:
        return False


def verdict_processes(server):
    """Those below the server, by what they were started as."""
    found, waiting = [], [server.process.pid]
    while waiting:
        pid = waiting.pop()
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = [int(child) for child in (task / "children").read_text().split()]
            waiting += children
            found += [child for child in children if "sendback.verdicts.child" in command(child)]
    return found


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_without_dns_there_is_none(start):
    server = start(SENDBACK_DNS="off")
    assert b"Received-SPF" not in receive(server)
    assert verdict_processes(server) == []


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_they_start_when_they_are_needed_and_end_with_the_server(start, workers, end):
    server = start("--workers", workers)
    assert verdict_processes(server) == []
    assert b"\r\nReceived-SPF: pass " in receive(server, 4)
    processes = verdict_processes(server)
    assert 1 <= len(processes) <= int(workers)
    if end == "stop":
        assert server.stop() == 0
    else:
        for pid in {server.process.pid, *parents(processes)}:
            os.kill(pid, signal.SIGKILL)
        server.process.wait()
    wait_for(lambda: not any(map(command, processes)), 10)


def parents(processes):
    return {
        int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        for pid in processes
    }


def test_one_that_is_killed_is_replaced(start):
    server = start()
    receive(server)
    (first,) = verdict_processes(server)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: not verdict_processes(server))
    assert b"\r\nReceived-SPF: pass " in receive(server)
    assert f"verdict process {first} is lost" in server.log
    assert "Traceback" not in server.log


def test_ctrl_c_for_the_whole_group_lets_what_is_in_progress_end(start, dns):
    """A terminal sends SIGINT to all: the processes go on until their server is done."""
    server = start()
    receive(server)
    (process,) = verdict_processes(server)
    os.kill(process, signal.SIGINT)
    assert b"\r\nReceived-SPF: pass " in receive(server)
    assert verdict_processes(server) == [process]


def test_hostile_text_reaches_the_log_in_visible_form(start):
    server = start()
    signature = (
        b"DKIM-Signature: v=1; a=rsa-sha256; d=\x1b[31mevil\xe2\x80\xae.example; s=\xc2\x9b;"
        b" h=From; bh=AAAA; b=AAAA\r\n"
    )
    wait_for(
        lambda: send_mail(server.smtp_port, content=signature + b"From: a@b.example\r\n\r\nx\r\n")
    )
    wait_for(lambda: "dkim permerror" in server.log, 20)
    assert "d=\\x1b[31mevil\\u202e.example s=\\x9b" in server.log
    assert "\x1b" not in server.log
    assert "\u202e" not in server.log
