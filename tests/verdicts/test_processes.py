"""The processes that authenticate mail: what is left of the others when one has to be killed."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sendback.mail.address import parse_address
from sendback.mail.envelope import Client, ReversePath
from sendback.receipt.verdicts import UNKNOWN
from sendback.service.rules.content import Content, MailToCheck
from sendback.verdicts.processes import COMMAND, VerdictProcesses
from tests.partners.contents import in_file
from tests.partners.dns_server import DnsServer
from tests.partners.waiting import wait_for
from tests.verdicts.mails import RECEIVED_AT

AWKWARD = (sys.executable, "-P", str(Path(__file__).with_name("awkward_child.py")))
ZONE = """\
sender.example. 300 IN TXT "v=spf1 ip4:192.0.2.0/24 -all"
_dmarc.sender.example. 300 IN TXT "v=DMARC1; p=reject"
s._domainkey.sender.example. 300 IN TXT "v=DKIM1; p=YQ=="
"""
UNSIGNED = b"From: ann@sender.example\r\n"
OTHERS = set()
SIGNED = b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example; s=s; h=from; bh=YQ==; b=YQ==\r\n"


@pytest.fixture(scope="module", autouse=True)
def others():
    """Processes of the whole run, such as the PostgreSQL server of other tests."""
    OTHERS.update(every_child())
    yield
    OTHERS.clear()


@pytest.fixture(scope="module")
def dns():
    with DnsServer(ZONE) as server:
        yield server


@pytest.fixture
def run(dns):
    """Runs a story with processes; none of them is left behind."""

    def start(story, **options):
        async def whole():
            given = {"processes": 1, "seconds": 1.0, "cpu_seconds": 0.5, "command": AWKWARD}
            processes = VerdictProcesses([("127.0.0.1", dns.port)], **{**given, **options})
            try:
                return await story(processes)
            finally:
                await processes.close()
                assert children() == []

        return asyncio.run(whole())

    return start


def children():
    """The IDs of the processes that these tests have started, zombies included."""
    return [pid for pid in every_child() if pid not in OTHERS]


def every_child():
    found = []
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def mail(local="ann", *, header=UNSIGNED, body=b"\r\nhi\r\n", domain="sender.example"):
    sender = ReversePath(parse_address(f"{local}@{domain}"))
    content = Content(header, body, len(body))
    return MailToCheck(local, Client("192.0.2.7", "mx.x"), sender, RECEIVED_AT, content)


def of(verdicts):
    return verdicts.spf.result, [entry.result for entry in verdicts.dkim], verdicts.dmarc.result


PASSES = ("pass", [], "pass")


def test_no_process_is_started_before_a_mail_needs_one(run):
    async def story(processes):
        assert children() == []
        assert of(await processes.authenticate(mail())) == PASSES
        (first,) = children()
        for _ in range(20):
            await processes.authenticate(mail())
        assert children() == [first]

    run(story, processes=4)


def test_many_mails_at_once_share_the_processes(run):
    async def story(processes):
        mails = [mail("wait") for _ in range(40)]
        started = time.monotonic()
        found = await asyncio.gather(*map(processes.authenticate, mails))
        assert [of(each) for each in found] == [PASSES] * 40
        assert len(children()) == 3
        return time.monotonic() - started

    # One after the other, the second that each waits would add up to 40.
    assert run(story, processes=3, cpu_seconds=20) < 20


@pytest.mark.parametrize("deed", ["hang", "loop", "exit", "kill", "babble", "flood", "stop"])
def test_a_method_that_takes_its_process_down_costs_only_its_own_result(run, deed):
    async def story(processes):
        found = await processes.authenticate(mail(deed, header=SIGNED + UNSIGNED))
        assert of(found) == ("temperror", ["fail"], "temperror")
        assert of(await processes.authenticate(mail())) == PASSES

    run(story)


def test_the_methods_behind_one_that_hangs_have_their_results(run):
    async def story(processes):
        found = await processes.authenticate(mail("dkim-hang", header=SIGNED + UNSIGNED))
        assert of(found) == ("pass", ["temperror"], "pass")

    run(story)


@pytest.mark.parametrize("deed", ["memory", "recursion"])
def test_an_exception_costs_only_its_own_result(run, deed):
    async def story(processes):
        found = await processes.authenticate(mail(deed, header=SIGNED + UNSIGNED))
        assert of(found) == ("temperror", ["fail"], "temperror")
        (survivor,) = children()
        assert of(await processes.authenticate(mail())) == PASSES
        assert children() == [survivor]

    run(story)


def test_a_method_that_was_given_up_may_have_been_the_one_that_passes(run):
    """DMARC is not known then, unless what was given up is about another domain."""

    async def story(processes):
        found = await processes.authenticate(mail("hang", domain="other.example"))
        assert found.dmarc.result == "fail"
        found = await processes.authenticate(
            mail("dkim-hang", header=SIGNED + UNSIGNED, domain="other.example")
        )
        assert of(found) == ("none", ["temperror"], "temperror")
        two = SIGNED + UNSIGNED + b"From: boss@bank.example\r\n"
        found = await processes.authenticate(mail("dkim-hang", header=two, domain="other.example"))
        assert found.dmarc.result == "fail"

    run(story)


def test_mails_beside_one_that_hangs_are_tried_again(run):
    async def story(processes):
        mails = [mail("hang"), *(mail() for _ in range(5)), mail("exit"), mail("wait")]
        found = await asyncio.gather(*map(processes.authenticate, mails))
        results = [of(each) for each in found]
        assert results[1:6] == [PASSES] * 5
        assert results[7] == PASSES
        assert results[0] == results[6] == ("temperror", [], "temperror")

    run(story, cpu_seconds=2.5)


def test_what_a_library_prints_is_no_result(run):
    async def story(processes):
        assert of(await processes.authenticate(mail("print"))) == PASSES

    run(story)


def test_a_silent_dns_server_costs_the_time_for_look_ups_and_no_process(run):
    async def story(processes):
        await processes.authenticate(mail())
        before = children()
        found = await processes.authenticate(mail(domain="silent.example"))
        assert found.spf.result == "temperror"
        assert found.dmarc.policy == "reject"
        assert children() == before

    run(story, cpu_seconds=5)


def test_a_sender_cannot_use_up_the_time_for_the_author(run):
    """SPF and DKIM of silent domains leave time for the author's policy."""
    silent = b"".join(
        b"DKIM-Signature: v=1; a=rsa-sha256; d=silent%d.silent.example; s=s; h=from; "
        b"bh=%s; b=YQ==\r\n" % (number, b"jSwpNKkhqcUYNrE8Tz/6mh4uU8gFwlmPWaPPyhQh4IQ=")
        for number in range(5)
    )

    async def story(processes):
        found = await processes.authenticate(
            mail(header=silent + UNSIGNED, domain="x.silent.example")
        )
        assert found.dmarc.policy == "reject"

    run(story, cpu_seconds=10)


def test_a_body_in_a_file_is_read_by_the_process(run, tmp_path):
    async def story(processes):
        file = tmp_path / "body"
        file.write_bytes(b"\r\n" + b"x" * 3_000_000)
        content = in_file(SIGNED + UNSIGNED, file, 3_000_002)
        large = replace(mail(), content=content)
        assert of(await processes.authenticate(large)) == ("pass", ["fail"], "pass")
        file.unlink()
        assert of(await processes.authenticate(large)) == ("pass", ["temperror"], "pass")

    run(story)


def test_a_process_that_cannot_be_started(run, caplog):
    async def story(processes):
        found = await asyncio.gather(*(processes.authenticate(mail()) for _ in range(20)))
        assert [of(each) for each in found] == [of(UNKNOWN)] * 20

    run(story, command=(sys.executable, "-c", "raise SystemExit(7)"))
    # Not once for each mail.
    assert caplog.text.count("a process ended with status 7 before it was ready") == 2
    run(story, command=("/nonexistent",))
    assert "could not be started" in caplog.text


def test_a_mail_does_not_wait_for_ever_for_a_process(run, monkeypatch, caplog):
    monkeypatch.setattr("sendback.verdicts.processes._WAIT_SECONDS", 0.3)

    async def story(processes):
        waiting = [asyncio.create_task(processes.authenticate(mail("wait"))) for _ in range(16)]
        await asyncio.sleep(0.6)
        assert of(await processes.authenticate(mail())) == of(UNKNOWN)
        assert [of(each) for each in await asyncio.gather(*waiting)] == [PASSES] * 16

    run(story, cpu_seconds=10)
    assert "no process had capacity" in caplog.text


def test_an_idle_process_is_ended(run, monkeypatch):
    monkeypatch.setattr("sendback.verdicts.processes._IDLE_SECONDS", 0.2)

    async def story(processes):
        assert of(await processes.authenticate(mail())) == PASSES
        deadline = time.monotonic() + 10
        while children() and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert children() == []
        assert of(await processes.authenticate(mail())) == PASSES

    run(story)


def test_who_gives_up_waiting_leaves_the_process_to_others(run):
    async def story(processes):
        task = asyncio.create_task(processes.authenticate(mail("wait")))
        await asyncio.sleep(0.6)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert of(await processes.authenticate(mail())) == PASSES
        assert len(children()) == 1

    run(story, cpu_seconds=10)


def test_notes_are_printable_in_the_log(run, caplog):
    caplog.set_level("INFO")
    hostile = SIGNED.replace(b"d=sender.example", b"d=\x1b[31mred\xe2\x80\xae.example")

    async def story(processes):
        await processes.authenticate(mail(header=hostile + UNSIGNED))

    run(story)
    assert "\\x1b[31mred\\u202e.example" in caplog.text
    assert "\x1b" not in caplog.text


# --- what a process is ---------------------------------------------------------------------------


def started(dns, environment=()):
    """A process as the server starts one, ready for mail."""
    return subprocess.Popen(
        [*COMMAND, f'{{"parent": {os.getpid()}, "servers": [["127.0.0.1", {dns.port}]]}}'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **dict(environment)},
    )


def seen(process):
    """A process's environment, open files and limits."""
    folder = Path(f"/proc/{process}")
    files = [str(entry.readlink()) for entry in (folder / "fd").iterdir()]
    return (folder / "environ").read_bytes(), files, (folder / "limits").read_text()


def test_a_process_has_no_secret_and_no_socket(run, monkeypatch):
    monkeypatch.setenv("SENDBACK_SECRET", "5ec2e7")
    monkeypatch.setenv("SENDBACK_OUTBOUND", "smtp://user:5ec2e7@relay.example:25")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "5ec2e7")

    async def story(processes):
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        await processes.authenticate(mail())
        (child,) = children()
        environment, open_files, limits = seen(child)
        assert b"5ec2e7" not in environment
        assert {entry.partition(b"=")[0] for entry in environment.split(b"\0")} <= {
            b"", b"PATH", b"PYTHONPATH", b"PYTHONHOME", b"LD_LIBRARY_PATH", b"LANG", b"LC_ALL",
            b"TZ", b"MALLOC_ARENA_MAX", b"LC_CTYPE",
        }  # fmt: skip
        assert not [name for name in open_files if name.startswith("socket:")]
        assert len(open_files) <= 5
        assert "Max address space         1073741824" in limits
        assert "Max core file size        0" in limits
        server.close()

    run(story, command=COMMAND)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_whole_group_do_not_end_it(dns, number):
    with started(dns) as process:
        assert process.stdout.readline() == b"\n"
        process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.stdin.close()  # the parent's end
        assert process.wait(10) == 0


def test_it_dies_with_its_parent_even_while_it_is_busy(tmp_path):
    """SIGKILL of the parent closes the pipe too; a process that holds the GIL does not see that."""
    parent = f"""
import asyncio, os, sys
sys.path[:0] = {sys.path!r}
from sendback.verdicts.processes import VerdictProcesses
from tests.verdicts.test_processes import AWKWARD, mail, children

async def main():
    processes = VerdictProcesses(None, processes=1, seconds=60, command=AWKWARD)
    task = asyncio.create_task(processes.authenticate(mail("hang")))
    while not children():
        await asyncio.sleep(0.01)
    print(*children(), flush=True)
    await task

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        try:
            wait_for(lambda: threads(child).count("R") and len(threads(child)) > 1, 20)
            time.sleep(0.2)
            assert "R" in threads(child)
        finally:
            process.kill()
    wait_for(lambda: set(threads(child)) <= {"Z"}, 10)


def test_one_whose_parent_is_gone_already_ends(dns):
    done = subprocess.run(
        [*COMMAND, '{"parent": 1, "servers": null}'], stdin=subprocess.PIPE, timeout=20, check=False
    )
    assert done.returncode == 1


def threads(process):
    """The states of a process's threads, as /proc has them; none when there is no such process."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        return [(task / "stat").read_text().rpartition(")")[2].split()[0] for task in tasks]
    except (FileNotFoundError, ProcessLookupError):
        return []
