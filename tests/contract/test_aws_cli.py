"""The AWS CLI, with the calls of scripts and tutorials."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import need

pytestmark = pytest.mark.sqlite("it tests the client: others test the same calls")

AWS = Path(sys.executable).with_name("aws")


@pytest.fixture
def aws(server, tmp_path):
    need("the AWS CLI", available=AWS.is_file())

    def run(*arguments, fails=False):
        done = subprocess.run(
            [AWS, "ses", *arguments, "--endpoint-url", server.endpoint, "--output", "json"],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_MAX_ATTEMPTS": "1",
            },
        )
        assert bool(done.returncode) == fails, done.stderr
        if fails:
            return done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    return run


def test_identities(aws):
    tokens = aws("verify-domain-dkim", "--domain", "example.com")["DkimTokens"]
    assert len(tokens) == 3
    names = (
        "--identities",
        "example.com",
        "arn:aws:ses:us-east-1:000000000000:identity/example.com",
    )
    found = aws("get-identity-dkim-attributes", *names)["DkimAttributes"]
    assert {name: each["DkimTokens"] for name, each in found.items()} == dict.fromkeys(
        names[1:], tokens
    )
    assert aws("list-identities", "--identity-type", "Domain")["Identities"] == ["example.com"]
    quota = aws("get-send-quota")
    assert quota["SentLast24Hours"] / quota["Max24HourSend"] == 0
    assert 1 / quota["MaxSendRate"] < 1
    refused = aws(
        "set-identity-feedback-forwarding-enabled",
        "--identity", "no.example", "--no-forwarding-enabled",
        fails=True,
    )  # fmt: skip
    assert "Identity no.example is invalid. Must be a verified email address or domain." in refused


def test_rules(aws):
    aws("create-receipt-rule-set", "--rule-set-name", "main")
    rule = {"Name": "all", "Enabled": True, "Actions": [{"StopAction": {"Scope": "RuleSet"}}]}
    aws("create-receipt-rule", "--rule-set-name", "main", "--rule", json.dumps(rule))
    found = aws("describe-receipt-rule-set", "--rule-set-name", "main")["Rules"]
    assert found == [{**rule, "TlsPolicy": "Optional", "ScanEnabled": False}]
    both = {"StopAction": {"Scope": "RuleSet"}, "SNSAction": {"TopicArn": "arn:aws:sns:x"}}
    rule = json.dumps({"Name": "two", "Actions": [both]})
    refused = aws("create-receipt-rule", "--rule-set-name", "main", "--rule", rule, fails=True)
    assert "Exactly one action type must be specified for each ReceiptAction" in refused
    aws("set-active-receipt-rule-set", "--rule-set-name", "main")
    assert aws("describe-active-receipt-rule-set")["Metadata"]["Name"] == "main"
    aws("set-active-receipt-rule-set")
    aws("delete-receipt-rule-set", "--rule-set-name", "main")
