"""Spam by a real rspamd, viruses by a real clamd (with a signature of the test's own)."""

import asyncio
import shutil
import socket
import subprocess

import pytest

from sendback.mail.address import parse_address
from sendback.mail.envelope import Client, ReversePath
from sendback.receipt.verdicts import Verdict
from sendback.service.processing import Examined
from sendback.verdicts.judge import MailJudge
from sendback.verdicts.scanners import Clamd, Rspamd
from tests.conftest import need
from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"


def mail(text):
    content = b"From: ann@sender.example\r\nSubject: x\r\n\r\n" + text + b"\r\n"
    sender = ReversePath(parse_address("ann@sender.example"))
    return Examined(Client("192.0.2.7", "mx.sender.example"), sender, content)


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
    wait_for(lambda: listens(port), 30)
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
    wait_for(lambda: listens(port), 30)
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
    judge = MailJudge(None, Rspamd(rspamd), Clamd(clamd[0]), seconds=1.0)
    found = asyncio.run(judge.judge(mail(EICAR), scan=True))
    assert (found.spam, found.virus) == (Verdict.PASS, Verdict.FAIL)
    found = asyncio.run(judge.judge(mail(EICAR), scan=False))
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
