"""Mail in, S3 as a directory, a webhook, a function that bounces and stops: nothing is mocked."""

import base64
import json
import shutil
from pathlib import Path

import pytest

from sendback.dsn.parse import parse
from tests.conftest import need
from tests.partners.clients import send_mail
from tests.partners.listener import Listener
from tests.partners.sendback import Sendback
from tests.partners.waiting import wait_for
from tests.partners.webhook import Webhook

HERE = Path(__file__).parent
TOPIC = "arn:aws:sns:us-east-1:000000000000:mail"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:bounce-it"
PYTHON = f"python:{HERE / 'functions/bounce_it.py'}:handler"
NODE = f"node:{HERE.parent / 'contract/javascript/bounce_it.mjs'}:handler"

SETUP = """
identities = ["example.com"]
active_rule_set = "main"

[buckets]
mail = "directory:stored"

[topics]
"{topic}" = "{url}"

[functions]
"{function}" = "{target}"

[[rule_sets.main.rules]]
Name = "check"
Recipients = ["example.com"]
Actions = [
  {{ S3Action = {{ BucketName = "mail", ObjectKeyPrefix = "in" }} }},
  {{ SNSAction = {{ TopicArn = "{topic}", Encoding = "Base64" }} }},
  {{ LambdaAction = {{ FunctionArn = "{function}", InvocationType = "RequestResponse" }} }},
]

[[rule_sets.main.rules]]
Name = "later"
Actions = [ {{ AddHeaderAction = {{ HeaderName = "X-Later", HeaderValue = "yes" }} }} ]
"""


@pytest.mark.parametrize("target", [PYTHON, NODE], ids=["python", "node"])
def test_a_function_bounces_what_its_rule_gave_it(tmp_path, target):
    need("node", available=bool(shutil.which("node")))
    server = Sendback(tmp_path, environment={"SENDBACK_DNS": "off"})
    with Listener() as inbox, Webhook() as hook:
        server.flags = ("--outbound", inbox.url)
        server.environment["SENDBACK_PRIVATE_TARGETS"] = "true"
        setup = tmp_path / "setup.toml"
        setup.write_text(SETUP.format(topic=TOPIC, url=hook.url, function=FUNCTION, target=target))
        with server:
            applied = server.run("rules", "apply", str(setup))
            assert "Rule set main is active." in applied.stdout
            assert "Nothing to change." in server.run("rules", "apply", str(setup)).stdout
            message_id = send_mail(server.smtp_port)
            bounce = inbox.next(20)
            wait_for(lambda: _processing(server, message_id) == "done", 20)
            shown = server.json("messages", "show", message_id)

        stored = (tmp_path / "stored/in" / message_id).read_bytes()
        headers, body = hook.next()

    assert bounce.sender == ""
    assert bounce.recipients == ["ann@sender.example"]
    (recipient,) = parse(bounce.content).recipients
    assert dict(recipient.fields)["Status"] == "5.6.1"
    assert dict(recipient.fields)["Final-Recipient"] == "rfc822; bob@example.com"

    assert b"X-SES-RECEIPT: " in stored
    assert stored.endswith(b"\r\nAre you free on Friday?\r\n")
    assert headers["x-amz-sns-message-type"] == "Notification"
    notification = json.loads(json.loads(body)["Message"])
    assert base64.b64decode(notification["content"]) == stored
    assert notification["mail"]["messageId"] == message_id

    steps = shown["steps"]
    assert [(step["rule"], step["action"], step["outcome"]) for step in steps] == [
        ("check", "S3", "done"),
        ("check", "SNS", "done"),
        ("check", "Lambda", "done"),
    ]
    assert steps[-1]["disposition"] == "STOP_RULE_SET"


def _processing(server, message_id):
    return server.json("messages", "show", message_id)["processing"]
