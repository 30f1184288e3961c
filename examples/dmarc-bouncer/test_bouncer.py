"""Tests of bouncer.py: real mail, real rules, and verdicts that each test chooses."""

import pytest

FAILED = {"spf": "FAIL", "dkim": "FAIL", "dmarc": "FAIL"}


@pytest.fixture
def bucket(sendback, sendback_env):
    """Receive for example.com: the function first, then a bucket for what it lets through."""
    from bouncer import handler  # here, because its client is made when it is imported

    sendback.verify("example.com")
    function = sendback.function("bouncer", handler)
    bucket = sendback.bucket("mail")
    sendback.rules(
        {
            "Actions": [
                {
                    "LambdaAction": {
                        "FunctionArn": function.arn,
                        "InvocationType": "RequestResponse",
                    }
                },
                bucket.action,
            ]
        }
    )
    return bucket


def test_unauthenticated_mail_is_bounced_where_its_domain_asks_for_that(sendback, bucket):
    received = sendback.receive(
        sender="ann@sender.example",
        recipients=["bob@example.com", "eve@example.com"],
        verdicts={**FAILED, "dmarc_policy": "reject"},
    )
    bounce = sendback.bounces.wait_for(original=received, recipient="bob@example.com")
    assert bounce.to == "ann@sender.example"
    assert bounce.dsn.statuses == ("5.6.1", "5.6.1")
    assert [entry.final_recipient for entry in bounce.dsn.recipients] == [
        "bob@example.com",
        "eve@example.com",
    ]
    assert b"sending domain's DMARC policy" in bounce.raw
    sendback.received.wait_for(message_id=received, processed=True)
    assert list(bucket) == []


@pytest.mark.parametrize(
    "verdicts",
    [
        {"dmarc": "PASS"},
        {"dmarc": "GRAY"},
        {**FAILED, "dmarc_policy": "none"},
        {**FAILED, "dmarc_policy": "quarantine"},
    ],
    ids=str,
)
def test_other_mail_is_stored(sendback, bucket, verdicts):
    received = sendback.receive(recipients="bob@example.com", verdicts=verdicts)
    assert bucket.wait_for(original=received).content.endswith(b"\r\nHello!\r\n")
    assert list(sendback.bounces) == []


def test_a_bounce_is_not_bounced(sendback, bucket):
    received = sendback.receive(
        sender="",
        recipients="bob@example.com",
        verdicts={**FAILED, "dmarc_policy": "reject"},
    )
    sendback.received.wait_for(message_id=received, processed=True)
    assert list(sendback.bounces) == list(bucket) == []
