"""The texts of a call, run as they are: in Python, in bash by the AWS CLI, in Node.js."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from sendback.console.snippets import snippets
from tests.conftest import need

JAVASCRIPT = Path(__file__).parents[1] / "contract" / "javascript"
REGION = "us-east-1"
LIST = "BouncedRecipientInfoList"
ODD = 'it\'s "quoted" $HOME `id` \\ !! äöü\nsecond line'


def bounce(message_id):
    """A call with everything that is awkward to quote."""
    return {
        "OriginalMessageId": message_id,
        "BounceSender": "mailer-daemon@example.com",
        "Explanation": ODD,
        "MessageDsn": {
            "ReportingMta": "dns; mx.example.com",
            "ArrivalDate": datetime(2026, 11, 27, 10, 42, 7, tzinfo=UTC),
            "ExtensionFields": [{"Name": "X-Reason", "Value": "it's $HOME"}],
        },
        LIST: [{"Recipient": "bob@example.com", "BounceType": "ContentRejected"}],
    }


def environment(tmp_path):
    return {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_OUTPUT": "json",
    }


def in_python(texts, tmp_path):
    script = f"{texts.boto3}\nimport json; print(json.dumps(response, default=str))"
    return [sys.executable, "-c", script]


def in_bash(texts, tmp_path):
    need("the AWS CLI", available=Path(sys.executable).with_name("aws").is_file())
    return ["bash", "-c", texts.cli]


def in_node(texts, tmp_path):
    is_there = (JAVASCRIPT / "node_modules").is_dir() and shutil.which("node") is not None
    need("node and tests/contract/javascript/node_modules", available=is_there)
    (tmp_path / "node_modules").symlink_to(JAVASCRIPT / "node_modules")
    script = tmp_path / "call.mjs"
    script.write_text(f"{texts.javascript}\nconsole.log(JSON.stringify(response));\n")
    return ["node", str(script)]


@pytest.mark.parametrize("language", [in_python, in_bash, in_node])
def test_the_text_is_the_call(server, tmp_path, language):
    texts = snippets("SendBounce", bounce(server.send_mail()), server.endpoint, REGION)
    done = subprocess.run(
        language(texts, tmp_path),
        capture_output=True, text=True, timeout=60, env=environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sent,) = server.outbox()
    assert json.loads(done.stdout)["MessageId"] == sent.message_id
    assert b"X-Reason: it's $HOME" in sent.content
    assert b"Fri, 27 Nov 2026 10:42:07 +0000" in sent.content
    assert b"`id`" in sent.content


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("language", [in_python, in_bash, in_node])
def test_a_flag(server, tmp_path, language, enabled):
    server.ses.verify_domain_dkim(Domain="example.com")
    given = {"Identity": "example.com", "DkimEnabled": enabled}
    action = "SetIdentityDkimEnabled"
    texts = snippets(action, given, server.endpoint, REGION)
    done = subprocess.run(
        language(texts, tmp_path),
        capture_output=True, text=True, timeout=60, env=environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_aws_cli_reads_no_file_that_a_text_names(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("do not send this")
    for text in (f"file://{secret}", f"fileb://{secret}", "http://127.0.0.1:1/", "https://x/"):
        cli = snippets("SendBounce", {"Explanation": text}, "http://x", REGION).cli
        assert "--explanation" not in cli
        assert f"--cli-input-json '{json.dumps({'Explanation': text})}'" in cli


def test_characters_that_cannot_be_seen_are_numbers():
    texts = snippets("SendBounce", {"Explanation": "a\u202eb'\\"}, "http://x", REGION)
    for text in (texts.cli, texts.boto3, texts.javascript):
        assert "\u202e" not in text
    printed = subprocess.run(
        ["bash", "-c", texts.cli.replace("aws ses send-bounce", "printf '%s\\n'", 1)],
        capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert "a\u202eb'\\" in printed.stdout.splitlines()


def test_every_operation_has_the_name_that_its_client_has():
    model = botocore.session.get_session().get_service_model("ses")
    for action in model.operation_names:
        shape = model.operation_model(action).input_shape
        members = shape.members if shape else {}
        texts = snippets(action, dict.fromkeys(members, "x"), "http://x", REGION)
        assert texts.cli.startswith(f"aws ses {xform_name(action, '-')} \\\n")
        assert f"ses.{xform_name(action)}(" in texts.boto3
        for name in members:
            assert f"--{xform_name(name, '-')} x" in texts.cli
