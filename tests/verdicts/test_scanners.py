"""Spam by a real rspamd, viruses by a real clamd (with a signature of the test's own)."""

import asyncio
import shutil
import socket
import subprocess
from contextlib import suppress
from dataclasses import replace

import pytest

from sendback.mail.address import parse_address
from sendback.mail.envelope import Client, ReversePath
from sendback.receipt.verdicts import UNKNOWN, Verdict, Verdicts
from sendback.service.rules.content import CHUNK_OCTETS
from sendback.verdicts.checks import MailChecks
from sendback.verdicts.scanners import Clamd, Rspamd
from tests.conftest import need
from tests.partners.contents import in_file
from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for
from tests.verdicts.mails import mail_to_check

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def mail(text):
    content = b"From: ann@sender.example\r\nSubject: x\r\n\r\n" + text + b"\r\n"
    sender = ReversePath(parse_address("ann@sender.example"))
    return mail_to_check(content, Client("192.0.2.7", "mx.sender.example"), sender)


def scan(scanner, text):
    return asyncio.run(scanner.scan(mail(text)))


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def clamd(tmp_path_factory):
    need("clamd", available=bool(shutil.which("clamd")))
    folder = tmp_path_factory.mktemp("clamd")
    folder.chmod(0o755)
    (folder / "db").mkdir()
    (folder / "db/test.ndb").write_text(f"Test.Eicar:0:*:{EICAR.hex()}\n")
    port = free_port()
    config = folder / "clamd.conf"
    config.write_text(
        f"Foreground yes\nDatabaseDirectory {folder}/db\nLocalSocket {folder}/clamd.sock\n"
        f"TCPSocket {port}\nTCPAddr 127.0.0.1\nUser root\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["clamd", f"--config-file={config}"], stdout=log, stderr=subprocess.STDOUT
        )
    wait_for(lambda: listens(port), 90)
    yield f"127.0.0.1:{port}", f"{folder}/clamd.sock"
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def rspamd(tmp_path_factory):
    need("rspamd", available=bool(shutil.which("rspamd")))
    folder = tmp_path_factory.mktemp("rspamd")
    port = free_port()
    config = folder / "rspamd.conf"
    config.write_text(
        f'options {{ pidfile = "{folder}/pid"; filters = ""; tempdir = "{folder}";'
        f' hs_cache_dir = "{folder}"; control_socket = "{folder}/control mode=0600";'
        ' dns { nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; } }\n'
        f'logging {{ type = "file"; filename = "{folder}/log"; }}\n'
        f'worker "normal" {{ bind_socket = "127.0.0.1:{port}"; count = 1; }}\n'
        'actions { reject = 15; "add header" = 6; greylist = 4; }\n'
    )
    process = subprocess.Popen(
        ["rspamd", "-f", "--insecure", "-c", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: listens(port), 90)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.mark.parametrize("way", [0, 1], ids=["tcp", "unix"])
def test_clamd_finds_a_virus(clamd, way):
    assert scan(Clamd(clamd[way]), b"harmless") is Verdict.PASS
    assert scan(Clamd(clamd[way]), EICAR) is Verdict.FAIL
    assert scan(Clamd(clamd[way]), b"x" * 1_000_000 + EICAR) is Verdict.FAIL


def test_rspamd_finds_spam(rspamd):
    assert scan(Rspamd(rspamd), b"harmless") is Verdict.PASS
    assert scan(Rspamd(rspamd), GTUBE) is Verdict.FAIL


def test_both_are_asked_for_a_rule_that_scans(clamd, rspamd):
    checks = MailChecks(None, Rspamd(rspamd), Clamd(clamd[0]))
    found = asyncio.run(checks.authenticate(mail(EICAR), scan=True))
    assert (found.spam, found.virus) == (Verdict.PASS, Verdict.FAIL)
    found = asyncio.run(checks.authenticate(mail(EICAR), scan=False))
    assert (found.spam, found.virus) == (Verdict.DISABLED, Verdict.DISABLED)


@pytest.mark.parametrize("scanner", [Rspamd("http://127.0.0.1:1"), Clamd("127.0.0.1:1")])
def test_one_that_is_not_there(scanner):
    assert scan(scanner, b"x") is Verdict.PROCESSING_FAILED


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\0", b"stream: x ERROR\0", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"],
)
def test_one_that_answers_nonsense(answer):
    async def run():
        async def serve(reader, writer):
            await reader.read(65536)
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return [
                await Clamd(f"127.0.0.1:{port}").scan(mail(b"x")),
                await Rspamd(f"http://127.0.0.1:{port}").scan(mail(b"x")),
            ]

    assert asyncio.run(run()) == [Verdict.PROCESSING_FAILED] * 2


def against(serve, work):
    """Runs the work with the port of a server whose connections are `serve`'s."""

    connections = []

    async def connected(reader, writer):
        connections.append((asyncio.current_task(), writer))
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)

    async def run():
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        try:
            return await work(server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for task, writer in connections:
                task.cancel()
                writer.transport.abort()
            await asyncio.gather(*(task for task, _ in connections), return_exceptions=True)

    return asyncio.run(run())


@pytest.fixture
def large(tmp_path):
    """A mail of 20 MB whose body is in a file."""
    body = b"\r\n" + b"x" * 20_000_000
    (tmp_path / "body").write_bytes(body)
    small = mail(b"")
    return replace(small, content=in_file(HEADER, tmp_path / "body", len(body)))


HEADER = b"From: ann@sender.example\r\nSubject: x\r\n"


@pytest.mark.parametrize("scanner", [Clamd, Rspamd])
def test_one_that_takes_the_connection_and_reads_nothing(scanner, large):
    """Closing must not wait for it either."""

    async def serve(reader, writer):
        await asyncio.sleep(3)
        writer.close()

    async def work(port):
        address = f"127.0.0.1:{port}" if scanner is Clamd else f"http://127.0.0.1:{port}"
        return await asyncio.wait_for(scanner(address, seconds=0.3).scan(large), 2)

    assert against(serve, work) is Verdict.PROCESSING_FAILED


@pytest.mark.parametrize(
    "answer",
    [
        b"[" * 500_000,
        b'{"action": "no action", "x": "' + b"x" * 2_000_000 + b'"}',
        b'{"action": ["no action"]}',
        b'{"action": null}',
        b'"no action"',
        b"\xff",
        b"",
    ],
)
def test_answers_of_rspamd_that_are_none(answer):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        writer.close()

    async def work(port):
        return await Rspamd(f"http://127.0.0.1:{port}").scan(mail(b"x"))

    assert against(serve, work) in {Verdict.PROCESSING_FAILED, Verdict.GRAY}


def test_an_answer_of_rspamd_without_end():
    """It is not read to the end: no more than 1 MiB of it is kept."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                await writer.drain()

    async def work(port):
        return await asyncio.wait_for(Rspamd(f"http://127.0.0.1:{port}").scan(mail(b"x")), 10)

    assert against(serve, work) is Verdict.PROCESSING_FAILED


def test_an_envelope_that_is_hostile_is_no_header_of_the_request():
    seen = []

    async def serve(reader, writer):
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\n{"action":"no action"}')
        writer.close()

    async def work(port):
        hostile = replace(mail(b"x"), client=Client("192.0.2.7", "a\r\nX: y\0\x1b" + "é" * 5000))
        return await Rspamd(f"http://127.0.0.1:{port}").scan(hostile)

    assert against(serve, work) is Verdict.PASS
    (request,) = seen
    assert b"\r\nHelo: a%0D%0AX: y%00%1B%C3%A9" in request
    assert len(request) < 8192


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (b"stream: OK\0", Verdict.PASS),
        (b"stream: Eicar FOUND\0", Verdict.FAIL),
        (b"INSTREAM size limit exceeded. ERROR\0", Verdict.PROCESSING_FAILED),
        (b"x" * 1_000_000, Verdict.PROCESSING_FAILED),
        (b"\x1b]0;title\x07\0", Verdict.PROCESSING_FAILED),
    ],
)
def test_answers_of_clamd(answer, verdict, large, caplog):
    received = []

    async def serve(reader, writer):
        assert await reader.readexactly(10) == b"zINSTREAM\0"
        while size := int.from_bytes(await reader.readexactly(4)):
            received.append(await reader.readexactly(size))
        writer.write(answer[:5])
        await writer.drain()
        await asyncio.sleep(0.01)  # an answer may come in pieces
        writer.write(answer[5:])
        writer.close()

    async def work(port):
        return await Clamd(f"127.0.0.1:{port}").scan(large)

    assert against(serve, work) is verdict
    assert b"".join(received) == large.content.read()
    assert max(map(len, received)) <= CHUNK_OCTETS
    assert "\x1b" not in caplog.text


@pytest.mark.parametrize("scanner", [Clamd, Rspamd])
def test_content_that_is_gone(scanner, tmp_path, caplog):
    async def serve(reader, writer):
        await reader.read(65536)
        writer.close()

    async def work(port):
        address = f"127.0.0.1:{port}" if scanner is Clamd else f"http://127.0.0.1:{port}"
        gone = replace(mail(b"x"), content=in_file(HEADER, tmp_path / "gone", 10))
        return await scanner(address).scan(gone)

    assert against(serve, work) is Verdict.PROCESSING_FAILED
    assert "gone is not there any more" in caplog.text


def test_whatever_breaks_costs_only_its_own_verdict(caplog):
    class Broken:
        async def scan(self, mail):
            raise RuntimeError("broken")

        async def authenticate(self, mail):
            raise RuntimeError("broken")

    class Works:
        async def scan(self, mail):
            return Verdict.PASS

        async def authenticate(self, mail):
            return Verdicts()

    def check(*parts):
        return asyncio.run(MailChecks(*parts).authenticate(mail(b"x"), scan=True))

    assert check(Broken(), Works(), Works()) == replace(
        UNKNOWN, spam=Verdict.PASS, virus=Verdict.PASS
    )
    found = check(Works(), Broken(), Works())
    assert (found.spf.result, found.spam) == ("none", Verdict.PROCESSING_FAILED)
    assert found.virus is Verdict.PASS
    assert caplog.text.count("RuntimeError: broken") == 2
