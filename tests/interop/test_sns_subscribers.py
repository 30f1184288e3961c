"""Subscribers that others wrote: validators of SNS's signatures, and anymail's webhook."""

import json
import os
import queue
import shutil
import ssl
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import need
from tests.partners.authority import Authority
from tests.partners.https_server import HttpsServer
from tests.partners.webhook import Webhook

TESTS = Path(__file__).parent.parent
TOPIC = "arn:aws:sns:us-east-1:000000000000:mails"


def rules(url):
    return f"""
        identities = ["example.com"]
        active_rule_set = "main"
        [topics]
        "{TOPIC}" = "{url}"
        [[rule_sets.main.rules]]
        Name = "publish"
        Enabled = true
        Actions = [{{ SNSAction = {{ TopicArn = "{TOPIC}", Encoding = "Base64" }} }}]
    """


class Site:
    """A public site in front of the server, whose certificates of SNS are at `localhost`."""

    def __init__(self, folder):
        self.authority = Authority(folder)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(self.authority.issue("localhost").file)
        self.https = HttpsServer(tls)
        self.host = f"localhost:{self.https.port}"

    def serve_certificate(self, server, message):
        path = urlsplit(message["SigningCertURL"]).path
        with urllib.request.urlopen(f"{server.endpoint}{path}") as response:
            self.https.body = response.read()


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path)
    with site.https:
        yield site


def published(running, site, version):
    """A message as a webhook gets it, whose certificate the site serves."""
    server = running(public_url=f"https://{site.host}", sns_signature_version=version)
    with Webhook() as hook:
        server.set_up(rules(hook.url))
        server.send_mail()
        _, body = hook.next()
    site.serve_certificate(server, json.loads(body))
    return json.loads(body)


def node_validator(site, message, tmp_path):
    """What npm's sns-validator says."""
    folder = TESTS / "contract/javascript"
    installed = (folder / "node_modules/sns-validator").is_dir()
    need("node with sns-validator (npm ci)", available=bool(shutil.which("node")) and installed)
    file = tmp_path / "message.json"
    file.write_text(json.dumps(message))
    done = subprocess.run(
        ["node", folder / "validate_sns.cjs", file, site.host],
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(site.authority.file)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("version", ["1", "2"])
def test_sns_validator_of_npm(running, site, tmp_path, version):
    message = published(running, site, version)
    assert node_validator(site, message, tmp_path) == "valid"
    changed = {**message, "Subject": "another"}
    assert node_validator(site, changed, tmp_path) == "The message signature is invalid."


def test_sns_message_validator_of_pypi(running, site, monkeypatch):
    folder = TESTS / "partners/fetched"
    need("sns-message-validator", available=(folder / "sns_message_validator").is_dir())
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(site.authority.file))
    from sns_message_validator import SignatureVerificationFailureException, SNSMessageValidator

    # It knows SignatureVersion 1 only, and trusts amazonaws.com unless told otherwise.
    message = published(running, site, "1")
    validator = SNSMessageValidator(cert_url_regex=rf"^https://{site.host}/")
    validator.validate_message(message)
    with pytest.raises(SignatureVerificationFailureException):
        validator.validate_message({**message, "Message": "another"})


@pytest.fixture
def anymail():
    need("anymail", available=bool(shutil.which(sys.executable)))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.partners.anymail_receiver", "sns:s3cret%"],
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = queue.Queue()

    def read():
        for line in process.stdout:
            lines.put(json.loads(line))

    threading.Thread(target=read, daemon=True).start()
    yield lines
    process.kill()
    process.wait(10)
    process.stdout.close()


def test_anymail_with_user_and_password(running, anymail):
    port = anymail.get(timeout=60)
    server = running()
    url = f"http://sns:s3cret%25@127.0.0.1:{port}/anymail/amazon_ses/inbound/"
    server.set_up(rules(url))
    message_id = server.send_mail()
    assert anymail.get(timeout=20) == {
        "esp": "Amazon SES",
        "subject": "Lunch",
        "text": "Are you free on Friday?\r\n",
        "id": message_id,
        "from": "ann@sender.example",
        "to": "bob@example.com",
    }
    (step,) = server.steps(message_id)
    assert "s3cret" not in step.result
    assert "***@127.0.0.1" in step.result


def test_a_wrong_password_is_refused(running, anymail):
    port = anymail.get(timeout=60)
    server = running()
    server.set_up(rules(f"http://sns:wrong@127.0.0.1:{port}/anymail/amazon_ses/inbound/"))
    message_id = server.send_mail()
    (step,) = server.steps(message_id)
    assert step.outcome == "failed"
    assert "answered 400" in step.result or "answered 403" in step.result
