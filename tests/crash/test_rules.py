"""kill -9 while rules are worked off: every message's plan is completed."""

import json
import smtplib
import time
from collections import Counter

import pytest

from tests.partners.clients import MAIL
from tests.partners.sendback import Sendback
from tests.partners.waiting import wait_for
from tests.partners.webhook import Webhook

MESSAGES = 300
TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
SETUP = """
identities = ["example.com"]
active_rule_set = "main"
topics = {{ "{topic}" = "{hook}" }}
functions = {{ "{function}" = "{function_hook}" }}

[[rule_sets.main.rules]]
Name = "all"
Actions = [
  {{ SNSAction = {{ TopicArn = "{topic}" }} }},
  {{ LambdaAction = {{ FunctionArn = "{function}", InvocationType = "RequestResponse" }} }},
  {{ BounceAction = {{ SmtpReplyCode = "550", Message = "No", Sender = "m@example.com" }} }},
]
"""


def send(server):
    """All messages on one connection; answers their IDs."""
    ids = []
    with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
        smtp.ehlo()
        for _ in range(MESSAGES):
            smtp.mail("ann@sender.example")
            smtp.rcpt("bob@example.com")
            code, reply = smtp.data(MAIL)
            assert code == 250
            ids.append(reply.decode().split()[1])
    return ids


def notified(body):
    return json.loads(json.loads(body)["Message"])["mail"]["messageId"]


def called(body):
    return json.loads(body)["Records"][0]["ses"]["mail"]["messageId"]


def counts(hook, read):
    found = Counter()
    while not hook.posts.empty():
        found[read(hook.next()[1])] += 1
    return found


@pytest.mark.parametrize("kill_after", [20, 150, 280])
def test_every_plan_is_completed_after_kill_9(tmp_path, kill_after, record_property):
    environment = {
        "SENDBACK_DNS": "off",
        "SENDBACK_LEASE": "3s",
        "SENDBACK_PROCESSING_TASKS": "4",
    }
    # Each answer takes a while, so that the kill finds work under way.
    slow = [(200, b"", 0.04)] * 1000
    with Webhook(*slow) as topic, Webhook(*slow) as call:
        setup = tmp_path / "setup.toml"
        setup.write_text(
            SETUP.format(topic=TOPIC, hook=topic.url, function=FUNCTION, function_hook=call.url)
        )
        server = Sendback(tmp_path, environment=environment).start()
        server.run("rules", "apply", str(setup))
        time.sleep(1.1)  # a server follows within a second
        ids = send(server)
        wait_for(lambda: call.count >= kill_after, 30)
        server.kill()
        server.start()
        try:
            outbox = _wait_for_bounces(server)
            shown = [server.json("messages", "show", message_id) for message_id in ids[::120]]
        finally:
            server.stop()
        notices, calls = counts(topic, notified), counts(call, called)
    assert set(notices) == set(calls) == set(ids)
    bounces = Counter(entry["original_message_id"] for entry in outbox)
    assert bounces == Counter(ids)  # exactly one each: it goes with its record
    for message in shown:
        assert message["processing"] == "done"
        assert [step["outcome"] for step in message["steps"]] == ["done"] * 3
    twice = {
        "notified": sum(1 for count in notices.values() if count > 1),
        "called": sum(1 for count in calls.values() if count > 1),
    }
    # Only what was under way can be repeated, and no more than four messages were.
    assert twice["notified"] + twice["called"] <= 4
    assert max(*notices.values(), *calls.values()) <= 2
    record_property("ran twice", twice)
    print(f"killed after {kill_after} calls: ran twice {twice}, bounced twice 0")


def _wait_for_bounces(server):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        outbox = server.json("outbox", "list", "--limit", "10000")
        if len(outbox) >= MESSAGES:
            return outbox
        time.sleep(0.3)
    raise AssertionError(f"{len(outbox)} bounces of {MESSAGES}")
