"""The commands, with their output as a table and as JSON."""

import json
import os
import subprocess
import sys

import pytest

from tests.partners.clients import MAIL, send_mail, ses
from tests.partners.queue import fill
from tests.partners.sendback import Sendback, run_cli

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with Sendback(folder, environment={"SENDBACK_SEND_BOUNCE_RATE": "0"}) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        yield server


def bounce(server, message_id, *arguments, check=True, environment=CREDENTIALS):
    return run_cli(
        "bounce", message_id, "--endpoint-url", server.endpoint, *arguments,
        check=check, environment=environment,
    )  # fmt: skip


def test_help_and_version():
    assert "serve" in run_cli("--help").stdout
    assert run_cli("--version").stdout.startswith("sendback 0.")
    for command in ("serve", "demo", "bounce", "messages", "outbox", "identities", "keys"):
        assert run_cli(command, "--help").stdout
    assert run_cli(check=False).returncode == 2
    assert run_cli("frobnicate", check=False).returncode == 2


def test_serve_prints_its_addresses_and_its_data_directory(served):
    assert served.endpoint in served.log
    assert f"127.0.0.1:{served.smtp_port}" in served.log
    assert "aws ses send-bounce" in served.log
    assert str(served.data_dir) in served.log


def test_messages(served):
    message_id = send_mail(served.smtp_port)
    (row, *_) = served.json("messages", "list")
    assert (row["message_id"], row["from"], row["to"], row["subject"]) == (
        message_id,
        "ann@sender.example",
        ["bob@example.com"],
        "Lunch",
    )
    table = served.run("messages", "list").stdout
    assert message_id in table
    shown = served.run("messages", "show", message_id).stdout
    assert "Subject: Lunch" in shown
    assert served.json("messages", "show", message_id)["helo"] == "mx.sender.example"
    raw = subprocess.run(
        [sys.executable, "-m", "sendback", "messages", "show", message_id, "--raw",
         "--data-dir", str(served.data_dir)],
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    assert raw.endswith(MAIL)
    missing = served.run("messages", "show", "nobody", check=False)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "nobody" in missing.stderr


def test_untrusted_values_are_printed_as_text(served):
    """No escape sequence in a mail reaches the terminal, and no markup is interpreted."""
    hostile = b"Subject: [red]\x1b[31mred[/red]\r\n\r\nx\r\n"
    message_id = send_mail(served.smtp_port, content=hostile)
    for output in (
        served.run("messages", "list").stdout,
        served.run("messages", "show", message_id).stdout,
    ):
        assert "\x1b" not in output
        assert "[red]\\x1b[31mred[/red]" in output


def test_bounce_and_outbox(served):
    message_id = send_mail(served.smtp_port)
    done = bounce(
        served, message_id, "--sender", "mailer-daemon@example.com",
        "--recipient", "bob@example.com", "--reason", "ExceededQuota", "--json",
    )  # fmt: skip
    bounce_id = json.loads(done.stdout)["message_id"]
    rows = served.json("outbox", "list", "--state", "captured")
    assert bounce_id in [row["message_id"] for row in rows]
    shown = served.json("outbox", "show", bounce_id)
    assert shown["original_message_id"] == message_id
    assert shown["tries"][0]["outcome"] == "captured"
    assert "Mailbox full" in shown["content"]
    assert "captured" in served.run("outbox", "show", bounce_id).stdout
    assert "Status: 5.2.2" in served.run("outbox", "show", bounce_id, "--raw").stdout
    retry = served.run("outbox", "retry", bounce_id, check=False)
    assert (retry.returncode, "not sent again" in retry.stderr) == (1, True)
    cancel = served.run("outbox", "cancel", bounce_id, check=False)
    assert (cancel.returncode, "nothing to cancel" in cancel.stderr) == (1, True)
    assert served.run("outbox", "show", "nobody", check=False).returncode == 1
    assert served.run("outbox", "list", "--state", "odd", check=False).returncode == 2


def test_bounce_prints_what_is_wrong(served, tmp_path):
    arguments = ("--sender", "a@example.com", "--recipient", "bob@example.com")
    refused = bounce(served, "nobody", *arguments, check=False)
    assert refused.returncode == 1
    assert "MessageRejected" in refused.stderr
    bad = bounce(served, "nobody", *arguments, "--reason", "Odd", check=False)
    assert bad.returncode == 2
    no_credentials = {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    missing = bounce(served, "nobody", *arguments, check=False, environment=no_credentials)
    assert missing.returncode == 1
    assert "AWS_ACCESS_KEY_ID=test" in missing.stderr
    left_over = {**CREDENTIALS, "AWS_SESSION_TOKEN": "of another shell"}
    refused = bounce(served, "nobody", *arguments, check=False, environment=left_over)
    assert "InvalidClientTokenId" in refused.stderr
    assert "AWS_SESSION_TOKEN is set: unset it" in refused.stderr
    dead = run_cli(
        "bounce", "x", *arguments, "--endpoint-url", "http://127.0.0.1:9",
        check=False, environment={**CREDENTIALS, "AWS_MAX_ATTEMPTS": "1"},
    )  # fmt: skip
    assert dead.returncode == 1
    assert "sendback serve" in dead.stderr


def test_outbox_retry_and_cancel(tmp_path):
    from tests.partners.postfix import free_port

    flags = ("--outbound", f"smtp://127.0.0.1:{free_port()}")
    with Sendback(tmp_path, flags) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        message_id = send_mail(server.smtp_port)
        done = bounce(
            server, message_id, "--sender", "a@example.com", "--recipient", "bob@example.com",
            "--json",
        )  # fmt: skip
        bounce_id = json.loads(done.stdout)["message_id"]
        _wait_for_attempts(server, bounce_id, 1)
        assert "due now" in server.run("outbox", "retry", bounce_id).stdout
        _wait_for_attempts(server, bounce_id, 2)
        assert "cancelled" in server.run("outbox", "cancel", bounce_id).stdout
        assert server.json("outbox", "show", bounce_id)["state"] == "cancelled"
        server.run("outbox", "retry", bounce_id)
        _wait_for_attempts(server, bounce_id, 3)


def test_the_queue_is_managed_while_no_server_runs(tmp_path):
    """Hold, release, pause, resume, cancel and retry."""
    server = Sendback(tmp_path)
    server.create().run("identities", "verify", "example.com")
    names = ("a@a.example", "b@a.example", "c@c.example")
    fill(server.data_dir, names)
    assert server.run("outbox", "hold", "--domain", "A.Example").stdout == "2 messages are held.\n"
    assert server.json("outbox", "summary") == {
        "queued": 1, "held": 2, "delivered": 0, "captured": 0, "failed": 0, "expired": 0,
        "cancelled": 0,
    }  # fmt: skip
    assert "1 message is due now" in server.run("outbox", "release", "--recipient", "b*").stdout
    server.run("outbox", "pause", "c.example")
    (row,) = [r for r in server.json("outbox", "domains") if r["domain"] == "c.example"]
    assert (row["state"], row["waiting"]) == ("paused", 1)
    retried = server.run("outbox", "retry", "--domain", "c.example").stdout
    assert "Paused until `sendback outbox resume`: c.example." in retried
    assert "due now" in server.run("outbox", "resume", "c.example").stdout
    assert "3 messages are cancelled" in server.run("outbox", "cancel", "--all").stdout
    assert "0 messages" in server.run("outbox", "retry", "--all").stdout
    assert "3 messages" in server.run("outbox", "retry", "--all", "--state", "cancelled").stdout
    nothing = server.run("outbox", "cancel", check=False)
    assert nothing.returncode == 2
    assert "--all" in nothing.stderr
    for state in ("delivered", "captured"):
        final = server.run("outbox", "retry", "--all", "--state", state, check=False)
        assert final.returncode == 2
        assert f"{state} messages are not sent again" in final.stderr
        assert "cancelled" in final.stderr
    unknown = server.run("outbox", "resume", "unknown.example", check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert unknown.stderr == (
        "sendback: no mail waits for unknown.example, and it is not paused: "
        "see `sendback outbox domains`\n"
    )
    server.run("outbox", "pause", "later.example")
    server.run("outbox", "resume", "later.example")
    odd = server.run("outbox", "list", "--older-than", "soon", check=False)
    assert odd.returncode == 2


def _wait_for_attempts(server, bounce_id, number):
    for _ in range(20):
        shown = server.json("outbox", "show", bounce_id)
        if shown["attempts"] >= number:
            return
    raise AssertionError(shown)


def test_identities(tmp_path):
    server = Sendback(tmp_path).create()
    assert server.json("identities", "verify", "Example.NET")["identity"] == "example.net"
    assert server.json("identities", "verify", "ann@x.example")["status"] == "Success"
    assert [row["identity"] for row in server.json("identities", "list")] == [
        "ann@x.example",
        "example.net",
    ]
    server.run("identities", "delete", "ann@x.example")
    assert server.run("identities", "delete", "ann@x.example", check=False).returncode == 1
    assert server.run("identities", "verify", "no domain", check=False).returncode == 1


def test_keys(served):
    served.run("users", "create", "ann")
    made = served.json("keys", "create", "--user", "ann")
    client = ses(served.endpoint, key=made["access_key_id"], secret=made["secret_access_key"])
    assert client.list_identities()["Identities"] == ["example.com"]
    listed = served.run("keys", "list", "--json").stdout
    assert made["access_key_id"] in listed
    assert made["secret_access_key"] not in listed
    stored = served.query("SELECT * FROM access_keys")
    assert made["access_key_id"] in repr(stored)
    assert made["secret_access_key"] not in repr(stored)
    served.run("keys", "delete", made["access_key_id"])
    assert served.run("keys", "delete", made["access_key_id"], check=False).returncode == 1


def test_a_missing_data_directory_is_an_error_and_not_created(tmp_path):
    done = run_cli("messages", "list", "--data-dir", str(tmp_path / "none"), check=False)
    assert done.returncode == 1
    assert "--data-dir" in done.stderr
    assert not (tmp_path / "none").exists()


def test_db_upgrade(tmp_path):
    assert (
        "migrated from schema none" in run_cli("db", "upgrade", "--data-dir", str(tmp_path)).stdout
    )
    assert (
        "which this version can use" in run_cli("db", "upgrade", "--data-dir", str(tmp_path)).stdout
    )


def test_ctrl_c_stops_the_server(tmp_path):
    import signal

    with Sendback(tmp_path) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
    assert "Traceback" not in server.log


def test_the_demo(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "sendback", "demo"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={**os.environ, "SENDBACK_OUTBOUND": "capture"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for words in ("message ID: ", "bounce ID:  0100", "Status: 5.1.1", "Action: failed"):
        assert words in done.stdout
