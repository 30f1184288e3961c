"""The AWS side of the ports: moto's server as S3, SNS, SQS and Lambda."""

import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile

import boto3
import pytest

from tests.partners.clients import MAIL
from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for
from tests.service.test_large_mail import LINE, SIZE, peak_of, send_large

TOPIC = "arn:aws:sns:us-east-1:123456789012:mail"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:check"


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    port = free_port()
    with (tmp_path_factory.mktemp("moto") / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=log, stderr=log
        )
    endpoint = f"http://127.0.0.1:{port}"
    wait_for(lambda: _listens(port), 30)
    config = {"lambda": {"use_docker": False}}
    urllib.request.urlopen(
        urllib.request.Request(
            f"{endpoint}/moto-api/config", json.dumps(config).encode(), method="POST"
        )
    ).close()
    yield endpoint
    process.terminate()
    process.wait()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def aws(moto):
    """Clients of moto, with a bucket, a topic that a queue is subscribed to, and a function."""

    def client(service):
        return boto3.client(
            service,
            endpoint_url=moto,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    client("s3").create_bucket(Bucket="mail")
    assert client("sns").create_topic(Name="mail")["TopicArn"] == TOPIC
    queue = client("sqs").create_queue(QueueName="mail")["QueueUrl"]
    arn = client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    client("sns").subscribe(TopicArn=TOPIC, Protocol="sqs", Endpoint=arn["Attributes"]["QueueArn"])
    role = client("iam").create_role(
        RoleName="r", AssumeRolePolicyDocument=json.dumps({"Statement": []})
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("f.py", "def handler(event, context):\n    return {}\n")
    client("lambda").create_function(
        FunctionName="check",
        Runtime="python3.11",
        Role=role["Role"]["Arn"],
        Handler="f.handler",
        Code={"ZipFile": packed.getvalue()},
    )
    return client


@pytest.fixture
def server(running, moto):
    instance = running(
        dns="off",
        send_bounce_rate="0",
        s3_endpoint=moto,
        sns_endpoint=moto,
        lambda_endpoint=moto,
    )
    instance.ses().verify_domain_identity(Domain="example.com")
    instance.ses().create_receipt_rule_set(RuleSetName="main")
    return instance


def create(server, *actions, name="all"):
    rule = {"Name": name, "Enabled": True, "Actions": list(actions)}
    server.ses().create_receipt_rule(RuleSetName="main", Rule=rule)
    server.ses().set_active_receipt_rule_set(RuleSetName="main")


def test_the_same_rules_on_aws(server, aws):
    create(
        server,
        {"S3Action": {"BucketName": "mail", "ObjectKeyPrefix": "in", "TopicArn": TOPIC}},
        {"SNSAction": {"TopicArn": TOPIC}},
        {"LambdaAction": {"FunctionArn": FUNCTION, "InvocationType": "RequestResponse"}},
        {"LambdaAction": {"FunctionArn": FUNCTION, "InvocationType": "Event"}},
    )
    message_id = server.send_mail()
    steps = server.steps(message_id)
    assert [(step.action, step.outcome.value) for step in steps] == [
        ("S3", "done"),
        ("Notice", "done"),
        ("SNS", "done"),
        ("Lambda", "done"),
        ("Lambda", "done"),
    ]
    stored = aws("s3").get_object(Bucket="mail", Key=f"in/{message_id}")["Body"].read()
    assert stored.endswith(MAIL)
    queue = aws("sqs").get_queue_url(QueueName="mail")["QueueUrl"]
    notified = []
    deadline = time.monotonic() + 10
    while len(notified) < 2 and time.monotonic() < deadline:
        found = aws("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        notified += [json.loads(m["Body"]) for m in found.get("Messages", ())]
    events = [json.loads(envelope["Message"]) for envelope in notified]
    assert sorted("content" in event for event in events) == [False, True]
    assert {event["mail"]["messageId"] for event in events} == {message_id}
    assert {envelope["Subject"] for envelope in notified} == {
        "Amazon SES Email Receipt Notification"
    }


@pytest.mark.parametrize(
    ("action", "code", "text"),
    [
        (
            {"S3Action": {"BucketName": "absent"}},
            "InvalidS3Configuration",
            "No such bucket: absent",
        ),
        (
            {"SNSAction": {"TopicArn": TOPIC + "-absent"}},
            "InvalidSnsTopic",
            f"Could not publish to SNS topic: {TOPIC}-absent",
        ),
        (
            {"LambdaAction": {"FunctionArn": FUNCTION + "-absent"}},
            "InvalidLambdaFunction",
            f"Could not invoke Lambda function: {FUNCTION}-absent",
        ),
    ],
)
def test_a_rule_is_checked_against_aws(server, aws, action, code, text):
    from tests.contract.errors import error

    rule = {"Name": "a", "Actions": [action]}
    call = server.ses().create_receipt_rule
    assert error(call, RuleSetName="main", Rule=rule) == (code, text)


def test_a_bucket_that_has_gone_is_tried_again(server, aws):
    aws("s3").create_bucket(Bucket="short-lived")
    create(server, {"S3Action": {"BucketName": "short-lived"}})
    aws("s3").delete_bucket(Bucket="short-lived")
    (step,) = server.steps(server.send_mail(), until_done=False)
    assert step.outcome.value == "retry"
    assert "NoSuchBucket" in step.result


def test_a_large_object_is_streamed(server, aws):
    """Its length is sent with it, and this process never has it whole."""
    create(server, {"S3Action": {"BucketName": "mail", "ObjectKeyPrefix": "large"}})
    ids = []

    def work():
        ids.append(send_large(server))
        (step,) = server.steps(ids[0])
        assert step.outcome.value == "done", step

    assert peak_of(work) < SIZE / 2
    found = aws("s3").head_object(Bucket="mail", Key=f"large/{ids[0]}")
    assert found["ContentLength"] > SIZE - 65536
    stored = aws("s3").get_object(Bucket="mail", Key=f"large/{ids[0]}")["Body"].read()
    assert stored.count(LINE) == SIZE // 65520 * (65536 // len(LINE))
