"""Postfix on the other end, and swaks and the AWS CLI as the users' own tools."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need
from tests.partners.clients import ses
from tests.partners.postfix import Postfix, is_usable
from tests.partners.sendback import Sendback


@pytest.fixture
def postfix():
    need("postfix", available=is_usable())
    with Postfix() as instance:
        yield instance


def aws(server, *arguments):
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [str(Path(sys.executable).with_name("aws")), "ses", *arguments]
    done = subprocess.run(
        [*command, "--endpoint-url", server.endpoint, "--output", "json"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def swaks(port, *arguments):
    done = subprocess.run(
        [
            "swaks", "--server", f"127.0.0.1:{port}", "--from", "ann@sender.example",
            "--to", "bob@example.com", *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (reply,) = (line for line in done.stdout.splitlines() if " 250 2.6.0 " in line)
    return reply.split()[3]


def test_swaks_the_aws_cli_and_postfix(tmp_path, postfix):
    """A mail by swaks, a bounce by the AWS CLI, delivered to a real Postfix."""
    need("swaks", available=shutil.which("swaks") is not None)
    with Sendback(tmp_path, ("--outbound", f"smtp://127.0.0.1:{postfix.port}")) as server:
        aws(server, "verify-domain-identity", "--domain", "example.com")
        message = swaks(server.smtp_port)
        answer = aws(
            server, "send-bounce", "--original-message-id", message,
            "--bounce-sender", "mailer-daemon@example.com",
            "--bounced-recipient-info-list", "Recipient=bob@example.com,BounceType=DoesNotExist",
        )  # fmt: skip
        log = postfix.wait_for_log("status=sent")
        bounce = server.json("outbox", "show", answer["MessageId"])
    assert f"message-id=<{answer['MessageId']}@mx.example.com>" in log
    assert "from=<>" in log
    assert "to=<ann@sender.example>" in log
    assert bounce["state"] == "delivered"
    assert "queued as" in bounce["tries"][0]["reply"]  # by BDAT, Postfix counts the octets too


def test_swaks_over_tls(tmp_path):
    need("swaks", available=shutil.which("swaks") is not None)
    with Sendback(tmp_path) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        message = swaks(server.smtp_port, "--tls")
        assert server.json("messages", "show", message)["tls"] == "TLSv1.3"


def test_postfix_sends_and_is_answered_with_a_bounce(tmp_path):
    """Postfix is both: it sends the mail with DSN parameters, and takes the bounce."""
    need("postfix", available=is_usable())
    with Sendback(tmp_path) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        extra = (
            f"relayhost = [127.0.0.1]:{server.smtp_port}\n"
            "smtp_tls_security_level = may\nsmtp_tls_loglevel = 1"
        )
        with Postfix(extra) as sending:
            subprocess.run(
                [
                    "sendmail", "-C", str(sending.folder / "etc"), "-f", "ann@sender.example",
                    "-N", "failure,delay", "-V", "QQ42", "bob@example.com",
                ],
                input=b"Subject: hi\n\nhello\n",
                check=True,
                timeout=30,
            )  # fmt: skip
            log = sending.wait_for_log("status=sent (250 2.6.0 ")
        assert "TLS connection established" in log
        (received,) = server.json("messages", "list")
        shown = server.json("messages", "show", received["message_id"])
    assert shown["envid"] == "QQ42"
    assert shown["notify"] == ["DELAY,FAILURE"]
    assert shown["orcpt"] == ["rfc822;bob@example.com"]
    assert shown["tls"] == "TLSv1.3"
