"""The AWS SDK for JavaScript: AWS's own sample, and its own retries."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import need
from tests.partners.faults import fail

pytestmark = pytest.mark.sqlite("it tests the client: others test the same calls")

FOLDER = Path(__file__).parent / "javascript"


@pytest.fixture(autouse=True)
def sdk():
    installed = (FOLDER / "node_modules/@aws-sdk/client-ses").is_dir()
    need(
        "node with @aws-sdk/client-ses (npm ci)", available=bool(shutil.which("node")) and installed
    )


def node(endpoint, message_id, reason="ContentRejected", script="send_bounce.mjs"):
    done = subprocess.run(
        ["node", FOLDER / script, endpoint, message_id, reason],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_awss_own_sample(server):
    answer = node(server.endpoint, server.send_mail())
    assert answer["attempts"] == 1
    content = server.bounce(answer["id"]).content
    assert b"Reporting-MTA: dns; example.com\r\n" in content
    assert b"Diagnostic-Code: smtp; 550 5.6.1 Message content rejected\r\n" in content


def test_errors_have_their_types(server):
    assert node(server.endpoint, "nobody")["name"] == "MessageRejected"
    assert node(server.endpoint, server.send_mail(), "Odd")["name"] == "ValidationError"


def test_the_sdks_retry_is_one_bounce(server):
    message = server.send_mail()
    fail(server, "api", operation="SendBounce", lost=True, first=1)
    answer = node(server.endpoint, message)
    assert answer["attempts"] == 2
    assert [entry.message_id for entry in server.outbox()] == [answer["id"]]


def test_version_2_of_the_sdk(server):
    answer = node(server.endpoint, server.send_mail(), script="send_bounce_v2.cjs")
    assert b"Status: 5.6.1\r\n" in server.bounce(answer["id"]).content
    answer = node(server.endpoint, "nobody", script="send_bounce_v2.cjs")
    assert answer["name"] == "MessageRejected"
    answer = node(server.endpoint, server.send_mail(), "Odd", script="send_bounce_v2.cjs")
    assert answer["name"] == "ValidationError"


def test_the_small_s3(server):
    server.set_up('identities = ["example.com"]\n[buckets]\nmail = "directory:mail"\n')
    done = subprocess.run(
        ["node", FOLDER / "objects.mjs", server.endpoint],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "checksum": "99GJgg==",
        "streamed": True,
        "streamChecksum": True,
        "metadata": {"state": "new"},
        "part": "ell",
        "keys": ["copy"],
        "prefixes": ["a b/"],
        "error": "NoSuchKey",
    }
