"""An SDK's own retry is one bounce: its 200 was lost on the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.partners.faults import counters, fail

BOUNCE = {
    "BounceSender": "mailer-daemon@example.com",
    "BouncedRecipientInfoList": [{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
}


@pytest.mark.parametrize("mode", ["legacy", "standard"])
def test_botos_retry_gets_the_same_message_id_and_one_bounce_is_sent(server, mode):
    message = server.send_mail()
    name = fail(server, "api", operation="SendBounce", lost=True, first=1)
    client = server.ses_client(retries={"max_attempts": 3, "mode": mode})
    answer = client.send_bounce(OriginalMessageId=message, **BOUNCE)
    assert counters(server) == {name: (2, 1)}
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1
    sent = server.outbox()
    assert [entry.message_id for entry in sent] == [answer["MessageId"]]


def test_a_retry_is_not_throttled_by_its_own_first_attempt(running):
    server = running()  # one call a second
    server.ses.verify_domain_identity(Domain="example.com")
    message = server.send_mail()
    fail(server, "api", operation="SendBounce", lost=True, first=2)
    client = server.ses_client(retries={"max_attempts": 3})
    answer = client.send_bounce(OriginalMessageId=message, **BOUNCE)
    assert len(server.outbox()) == 1
    assert answer["ResponseMetadata"]["RetryAttempts"] == 2


def test_the_same_call_by_another_key_is_another_call(server):
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    from tests.contract.test_common_errors import fetch

    message = server.send_mail()
    signer = server.issue("000000000000", "ann")
    body = (
        f"Action=SendBounce&Version=2010-12-01&OriginalMessageId={message}&BounceSender=a%40example.com"
        "&BouncedRecipientInfoList.member.1.Recipient=bob%40example.com"
        "&BouncedRecipientInfoList.member.1.BounceType=Undefined"
    ).encode()
    ids = set()
    for key, secret in (("test", "test"), (signer.key.access_key, signer.secret)):
        for _ in range(2):
            headers = {"Host": str(server.addresses.http), "amz-sdk-invocation-id": "i1"}
            request = AWSRequest("POST", f"{server.endpoint}/", headers=headers, data=body)
            SigV4Auth(Credentials(key, secret), "ses", "us-east-1").add_auth(request)
            ids.add(
                fetch(f"{server.endpoint}/", dict(request.headers), body).split("MessageId>")[1]
            )
    assert len(ids) == 2
    assert len(server.outbox()) == 2


def test_the_aws_cli_sends_a_bounce(server, tmp_path, monkeypatch):
    """AWS CLI from PyPI, as it is installed beside the tests."""
    message = server.send_mail()
    command = [
        str(Path(sys.executable).with_name("aws")), "ses", "send-bounce",
        "--endpoint-url", server.endpoint, "--region", "us-east-1", "--output", "json",
        "--original-message-id", message, "--bounce-sender", "mailer-daemon@example.com",
        "--bounced-recipient-info-list", "Recipient=bob@example.com,BounceType=ExceededQuota",
        "--message-dsn", "ReportingMta=dns; mx.example.com,ExtensionFields=[{Name=X-A,Value=1}]",
        "--explanation", "The mailbox is full.",
    ]  # fmt: skip
    environment = {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "HOME": str(tmp_path), "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert [entry.message_id for entry in server.outbox()] == [json.loads(done.stdout)["MessageId"]]
