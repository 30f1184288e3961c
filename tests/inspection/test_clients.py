"""Other clients of the inspection API: node's fetch, several workers, the commands."""

import json
import os
import pty
import re
import shutil
import signal
import smtplib
import subprocess
import sys

import pytest

from sendback.cli.tail import KINDS
from sendback.service.events.model import EventKind
from sendback.testing import Sendback as InProcess
from tests.inspection.api import Api
from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.sendback import Sendback, run_cli

NODE = """
const url = process.argv[2];
const post = (path, body) => fetch(url + path, {method: 'POST',
  headers: {'content-type': 'application/json'}, body: JSON.stringify(body)});
const events = await fetch(url + '/_sendback/events?kind=received');
const reader = events.body.pipeThrough(new TextDecoderStream()).getReader();
const sent = await post('/_sendback/messages',
  {from: 'ann@sender.example', to: ['bob@example.com'], subject: 'from node', text: 'hi'});
const {message_id} = await sent.json();
let text = '';
while (!text.includes(message_id)) text += (await reader.read()).value;
await reader.cancel();
const list = await (await fetch(url + '/_sendback/messages?wait=10s&subject=node')).json();
const refused = await post('/_sendback/messages',
  {from: 'ann@sender.example', to: ['eve@elsewhere.example'], subject: 'x'});
console.log(JSON.stringify({sent: sent.status, found: list.messages[0].message_id === message_id,
  refused: refused.status, reply: (await refused.json()).reply}));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_client_in_node(tmp_path):
    script = tmp_path / "client.mjs"
    script.write_text(NODE)
    with InProcess() as server:
        server.verify("example.com")
        done = subprocess.run(
            ["node", str(script), server.endpoint_url], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "sent": 201,
        "found": True,
        "refused": 422,
        "reply": "550 5.1.1 No such recipient here",
    }


def test_with_several_workers_events_come_from_all_and_the_clock_stands(tmp_path):
    with Sendback(tmp_path, ("--workers", "3")) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        api = Api(server.endpoint)
        tail = subprocess.Popen(
            [sys.executable, "-m", "sendback", "tail", "--json", "--since", "0",
             "--kind", "received", "--data-dir", str(server.data_dir)],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            sent = {send_mail(server.smtp_port) for _ in range(20)}
            found: set[str] = set()
            while not sent <= found:
                found.add(json.loads(tail.stdout.readline())["message_id"])
        finally:
            tail.kill()
            tail.wait()
            tail.stdout.close()
        sockets = list((server.data_dir / "sockets").iterdir())
        assert len(sockets) == 3
        for path, body in (("/_sendback/clock", {"advance": "1h"}), ("/_sendback/reset", {})):
            answer = api.call("POST", path, body)
            assert (answer.status, answer.error) == (409, "SeveralWorkers")
    assert list((tmp_path / "data/sockets").iterdir()) == []


def test_the_server_stops_at_once_though_streams_are_open(tmp_path):
    with Sendback(tmp_path) as server:
        tail = subprocess.Popen(
            [sys.executable, "-m", "sendback", "tail", "--since", "0",
             "--data-dir", str(server.data_dir)],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        assert b"example.com requested" in tail.stdout.readline()
        server.stop()
        server.start()
        ses(server.endpoint).verify_domain_identity(Domain="again.example")
        assert b"again.example requested" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.wait(20) == 130
        tail.stdout.close()
    assert "did not end in time" not in server.log


def test_tail_knows_the_kinds():
    assert list(KINDS) == [kind.value for kind in EventKind]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--kind", "odd"), 2, "--kind must be one of"),
        (("--since", "yesterday"), 2, "--since must be"),
        (("--endpoint-url", "nonsense"), 2, "--endpoint-url must be a URL"),
        (("--endpoint-url", "http://127.0.0.1:1"), 1, "cannot be reached"),
        ((), 2, "no server runs on"),
    ],
)
def test_tail_explains_what_is_wrong(tmp_path, arguments, code, text):
    done = run_cli(
        "tail", *arguments, check=False, environment={"SENDBACK_DATA_DIR": str(tmp_path)}
    )
    assert done.returncode == code
    assert text in done.stderr


def test_tail_needs_the_token_and_escapes_what_clients_wrote(tmp_path):
    token = "s3cret-token-of-the-tests"
    with Sendback(tmp_path, environment={"SENDBACK_INSPECTION_TOKEN": token}) as server:
        done = run_cli("tail", "--data-dir", str(server.data_dir), check=False)
        assert done.returncode == 1
        assert "inspection_token" in done.stderr
        assert token not in (server.data_dir / "server.json").read_text()
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        send_mail(server.smtp_port, content="Subject: \x1b[31mred\u202e\r\n\r\n".encode())
        environment = {**os.environ, "SENDBACK_INSPECTION_TOKEN": token}
        tail = subprocess.Popen(
            [sys.executable, "-m", "sendback", "tail", "--since", "0", "--kind", "received",
             "--data-dir", str(server.data_dir)],
            stdout=subprocess.PIPE, env=environment,
        )  # fmt: skip
        line = tail.stdout.readline()
        tail.kill()
        tail.wait()
        tail.stdout.close()
    assert b"\x1b" not in line
    assert re.search(rb"received .* from \S+ to bob@example.com: .*red", line)


def test_tail_shows_faults_and_what_they_refuse(tmp_path):
    with InProcess() as server:
        server.verify("example.com")
        api = Api(server.endpoint_url)
        host, port = server.smtp
        points = ("connect", "mail", "rcpt", "data", "end")
        for number, at in enumerate(points):
            reply = f"451 4.7.{number} Fault at {at}"
            fault = {"at": at, "name": at, "reply": reply, "first": 1}
            assert api.call("POST", "/_sendback/faults", fault).status == 201
            with pytest.raises(smtplib.SMTPException):
                with smtplib.SMTP(host, port) as client:
                    client.sendmail("ann@sender.example", "bob@example.com", MAIL)
        fault = {"at": "rcpt", "name": "again", "reply": "450 4.2.1 Busy"}
        assert api.call("POST", "/_sendback/faults", fault).status == 201
        assert api.inject(client_ip="192.0.2.7").status == 422
        tail = subprocess.Popen(
            [sys.executable, "-m", "sendback", "tail", "--since", "0", "--kind", "refused",
             "--kind", "setting", "--endpoint-url", server.endpoint_url],
            stdout=subprocess.PIPE, text=True,
            env={**os.environ, "SENDBACK_DATA_DIR": str(tmp_path)},
        )  # fmt: skip
        lines = [tail.stdout.readline()[10:].split(maxsplit=2) for _ in range(12)]
        tail.kill()
        tail.wait()
        tail.stdout.close()
    to = " to bob@example.com"
    commands = ["connect", "MAIL", f"RCPT{to}", f"DATA{to}", f"DATA{to}"]
    expected = []
    for number, (at, command) in enumerate(zip(points, commands, strict=True)):
        expected.append(["setting", "-", f"fault {at} is added\n"])
        refusal = f"127.0.0.1 {command}: 451 4.7.{number} Fault at {at}\n"
        expected.append(["refused", "-", refusal])
    expected.append(["setting", "-", "fault again is added\n"])
    expected.append(["refused", "-", f"192.0.2.7 RCPT{to}: 450 4.2.1 Busy\n"])
    assert lines == expected


# --- inject -----------------------------------------------------------------------------------


@pytest.fixture
def mails(tmp_path):
    folder = tmp_path / "mails"
    folder.mkdir()
    for name, to in (("a", "bob@example.com"), ("b", "eve@elsewhere.example"), ("c", "")):
        field = f"To: {to}\n" if to else ""
        (folder / f"{name}.eml").write_text(f"From: Ann <ann@sender.example>\n{field}\n.dot\n")
    (folder / "note.txt").write_text("no mail")
    return folder


@pytest.fixture(scope="module")
def server():
    with InProcess() as running:
        running.verify("example.com")
        yield running


def inject(server, *arguments: str):
    host, port = server.smtp
    return run_cli("inject", *arguments, "--smtp", f"{host}:{port}", check=False)


def test_a_directory_is_injected_and_refusals_are_listed(server, mails):
    server.received.clear()
    done = inject(server, str(mails))
    assert done.returncode == 1
    assert f"{mails}/a.eml: 250 2.6.0 " in done.stdout
    assert done.stdout.endswith("1 accepted, 2 refused\n")
    assert f"{mails}/b.eml: eve@elsewhere.example: 550 5.1.1 No such recipient" in done.stderr
    assert f"{mails}/c.eml: it names no recipient: give --to" in done.stderr
    (row,) = Api(server.endpoint_url).get("/_sendback/messages")["messages"]
    assert (row["from"], row["to"]) == ("ann@sender.example", ["bob@example.com"])


def test_the_envelope_may_be_given(server, mails):
    done = inject(server, str(mails / "c.eml"), "--from", "", "--to", "carol@example.com")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("1 accepted, 0 refused\n")
    message_id = done.stdout.split()[3]
    shown = Api(server.endpoint_url).get(f"/_sendback/messages/{message_id}")
    assert (shown["from"], shown["to"]) == (None, ["carol@example.com"])


def test_a_terminal_shows_a_progress_bar(server, mails):
    host, port = server.smtp
    primary, secondary = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "sendback", "inject", str(mails), "--to", "bob@example.com",
         "--smtp", f"{host}:{port}"],
        stdout=subprocess.PIPE, stderr=secondary,
    )  # fmt: skip
    os.close(secondary)
    shown = os.read(primary, 10_000)
    os.close(primary)
    assert done.returncode == 0
    assert b"[##########....................] 1/3" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("missing.eml",), 2, "missing.eml cannot be read: No such file"),
        (("--smtp", "nonsense"), 2, "--smtp"),
        ((), 2, "Missing argument"),
    ],
)
def test_inject_explains_what_is_wrong(tmp_path, server, arguments, code, text):
    if "--smtp" in arguments or not arguments:
        given = (*arguments, *(("x.eml",) if arguments else ()))
        done = run_cli("inject", *given, check=False)
    else:
        done = inject(server, *arguments)
    assert done.returncode == code
    assert text in done.stderr


def test_inject_says_that_no_server_is_there(tmp_path, mails):
    done = run_cli("inject", str(mails), "--smtp", "127.0.0.1:1", check=False)
    assert done.returncode == 1
    assert "the SMTP server 127.0.0.1:1: " in done.stderr
    done = run_cli(
        "inject", str(mails), check=False, environment={"SENDBACK_DATA_DIR": str(tmp_path)}
    )
    assert (done.returncode, "no server runs on" in done.stderr) == (2, True)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run_cli("inject", str(empty), "--smtp", "127.0.0.1:1", check=False).returncode == 1
