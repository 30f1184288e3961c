"""What a local function reaches: the mail in its bucket, SES, and nothing of AWS."""

import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.conftest import need
from tests.partners.waiting import wait_for

MODULES = Path(__file__).parent / "javascript/node_modules"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:handle"
MAIL = (
    b"From: Ann <ann@sender.example>\r\nTo: info@example.com\r\nSubject: Hi\r\n"
    b"Message-ID: <1@sender.example>\r\nDKIM-Signature: v=1; a=rsa-sha256;\r\n b=abc\r\n"
    b"\r\nHello\r\n"
)
SETUP = f"""
identities = ["example.com"]
active_rule_set = "main"

[buckets]
mail = "BUCKET"

[functions]
"{ARN}" = "TARGET"

[[rule_sets.main.rules]]
Name = "all"
Actions = [
  ACTIONS
  {{ LambdaAction = {{ FunctionArn = "{ARN}", InvocationType = "RequestResponse" }} }},
]
"""
STORES = '{ S3Action = { BucketName = "mail", ObjectKeyPrefix = "in" } },'


@pytest.fixture
def serve(running):
    """Starts a server whose function is the given file."""

    def start(name, code, handler="handler", *, bucket="directory:mail", actions=STORES, **flags):
        server = running(send_bounce_rate="0", **flags)
        (server.settings.data_dir / name).write_text(code)
        language = "python" if name.endswith(".py") else "node"
        setup = SETUP.replace("TARGET", f"{language}:{name}:{handler}")
        server.set_up(setup.replace("BUCKET", bucket).replace("ACTIONS", actions))
        return server

    return start


PYTHON = """
import boto3

def handler(event, context):
    record = event["Records"][0]["ses"]
    message = record["mail"]["messageId"]
    s3, ses = boto3.client("s3"), boto3.client("ses")
    key = {"Bucket": "mail", "Key": f"in/{message}"}
    content = s3.get_object(**key)["Body"].read()
    assert b"Hello" in content
    s3.copy_object(CopySource=key, Bucket="mail", Key=f"done/{message}",
        MetadataDirective="REPLACE", Metadata={"state": "bounced"})
    s3.delete_object(**key)
    ses.send_bounce(
        OriginalMessageId=message,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[
            {"Recipient": recipient, "BounceType": "ContentRejected"}
            for recipient in record["receipt"]["recipients"]
        ],
    )
    return {"disposition": "STOP_RULE"}
"""


def test_a_handler_reads_marks_and_bounces_its_mail(serve):
    server = serve("handle.py", PYTHON)
    message = server.send_mail(content=MAIL, recipients=("info@example.com",))
    steps = server.steps(message)
    assert [step.outcome for step in steps] == ["done", "done"], steps
    (bounce,) = server.outbox()
    assert b"Final-Recipient: rfc822; info@example.com" in bounce.content
    s3 = client_of(server, "s3", server.endpoint)
    listed = s3.list_objects_v2(Bucket="mail")["Contents"]
    assert [each["Key"] for each in listed] == [f"done/{message}"]
    metadata = s3.head_object(Bucket="mail", Key=f"done/{message}")["Metadata"]
    assert metadata == {"state": "bounced"}


FORWARDER = """
import { createRequire } from "node:module";
import { appendFileSync } from "node:fs";

const forwarder = createRequire(MODULES)("aws-lambda-ses-forwarder");
const record = (data) => {
  appendFileSync("processed", JSON.stringify([data.recipients, data.emailData]));
  return Promise.resolve(data);
};
const config = {
  fromEmail: "noreply@example.com",
  subjectPrefix: "[forwarded] ",
  emailBucket: "mail",
  emailKeyPrefix: "in/",
  forwardMapping: { "info@example.com": ["jen@elsewhere.example"] },
};
const steps = [
  forwarder.parseEvent, forwarder.transformRecipients, forwarder.fetchMessage,
  forwarder.processMessage, record, forwarder.sendMessage,
];
const log = (entry) => appendFileSync("log", JSON.stringify(entry) + "\\n");
export const handler = (event, context, callback) =>
  forwarder.handler(event, context, callback, { config, steps, log });
"""


def test_the_forwarder_of_npm_reads_its_mail(serve):
    """Its receiving half. The sending half calls SES v2, which is not there and says so."""
    installed = (MODULES / "aws-lambda-ses-forwarder").is_dir()
    need(
        "node with aws-lambda-ses-forwarder (npm ci)",
        available=bool(shutil.which("node")) and installed,
    )
    code = FORWARDER.replace("MODULES", json.dumps(str(MODULES / "index.js")))
    server = serve("forward.mjs", code, action_give_up_after="1s", action_retry_first="1s")
    message = server.send_mail(content=MAIL, recipients=("info@example.com",))
    wait_for(lambda: len(server.steps(message, until_done=False)) == 2)
    stored, forwarded = server.steps(message, until_done=False)
    assert stored.outcome == "done"
    assert "Step returned error" in forwarded.result
    folder = server.settings.data_dir
    recipients, content = json.loads((folder / "processed").read_text())
    assert recipients == ["jen@elsewhere.example"]
    assert "From: Ann <noreply@example.com>\r\n" in content
    assert "Reply-To: Ann <ann@sender.example>\r\n" in content
    assert "Subject: [forwarded] Hi\r\n" in content
    assert "Message-ID" not in content
    assert "DKIM-Signature" not in content
    assert content.endswith("\r\nHello\r\n")
    log = (folder / "log").read_text()
    assert "SES API v2 (sesv2) is not part of this server" in log
    assert "SES v1 (client `ses`)" in log


ENVIRONMENT = """
import json, os

def handler(event, context):
    with open("environment", "w") as file:
        json.dump(dict(os.environ), file)
"""


def environment_of(server):
    message = server.send_mail()
    (step,) = server.steps(message)
    assert step.outcome == "done", step
    return json.loads((server.settings.data_dir / "environment").read_text())


def test_what_a_function_has_in_capture_mode(serve):
    server = serve("e.py", ENVIRONMENT, actions="")
    found = environment_of(server)
    assert found["AWS_ENDPOINT_URL_SES"] == server.endpoint
    assert found["AWS_ENDPOINT_URL_S3"] == server.endpoint
    assert found["AWS_ENDPOINT_URL"] == f"{server.endpoint}/_closed"
    assert found["AWS_EC2_METADATA_DISABLED"] == "true"


def test_the_endpoint_of_s3_follows_the_buckets(serve):
    options = {"actions": "", "check_targets": "false"}
    server = serve("e.py", ENVIRONMENT, bucket="endpoint:http://127.0.0.1:9000", **options)
    assert environment_of(server)["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:9000"
    server.set_up('[buckets]\nmail = "directory:mail"\n')
    assert environment_of(server)["AWS_ENDPOINT_URL_S3"] == server.endpoint
    server.set_up('[buckets]\nmail = "aws"\n')
    assert environment_of(server)["AWS_ENDPOINT_URL_S3"] == "https://s3.us-east-1.amazonaws.com"


def test_a_function_with_a_relay_reaches_aws(serve):
    relay = {"outbound": "smtp://127.0.0.1:9", "actions": "", "private_targets": "true"}
    found = environment_of(serve("e.py", ENVIRONMENT, **relay))
    assert "AWS_ENDPOINT_URL" not in found
    assert "AWS_ENDPOINT_URL_S3" in found


@pytest.mark.parametrize("ours", [True, False])
def test_credentials_that_functions_inherit(serve, monkeypatch, ours):
    names = "AWS_ACCESS_KEY_ID,AWS_SECRET_ACCESS_KEY"
    server = serve("e.py", ENVIRONMENT, actions="", function_environment=names)
    issued = server.issue("000000000000", "root")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", issued.key.access_key if ours else "AKIAOFAWS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", issued.secret)
    found = environment_of(server)
    assert found["AWS_SECRET_ACCESS_KEY"] == issued.secret
    assert ("AWS_ENDPOINT_URL" in found) is ours
    assert ("AWS_ENDPOINT_URL_S3" in found) is ours
    assert found["AWS_ENDPOINT_URL_SES"] == server.endpoint


def client_of(server, service, endpoint):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 3, "mode": "standard"}),
    )


@pytest.mark.parametrize(
    ("service", "operation", "arguments", "name"),
    [
        ("dynamodb", "list_tables", {}, "dynamodb"),
        ("sqs", "list_queues", {}, "sqs"),
        ("sns", "list_topics", {}, "sns"),
        ("ec2", "describe_regions", {}, "ec2"),
        ("cloudwatch", "list_metrics", {}, "monitoring"),
        ("lambda", "list_functions", {}, "lambda"),
        ("route53", "list_hosted_zones", {}, "route53"),
        ("cloudfront", "list_distributions", {}, "cloudfront"),
        ("secretsmanager", "list_secrets", {}, "secretsmanager"),
        ("s3", "list_buckets", {}, "s3"),
        ("sesv2", "get_account", {}, "sesv2"),
        ("sts", "get_caller_identity", {}, "sts"),
        ("arc-region-switch", "list_plans", {}, "arc-region-switch"),
    ],
)
def test_every_other_service_is_refused_by_name(running, service, operation, arguments, name):
    server = running()
    closed = client_of(server, service, f"{server.endpoint}/_closed")
    with pytest.raises(ClientError) as raised:
        getattr(closed, operation)(**arguments)
    answer = raised.value.response
    assert answer["Error"]["Code"] in {"AccessDenied", "AccessDeniedException"}
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert answer["ResponseMetadata"]["RetryAttempts"] == 0
    text = answer["Error"]["Message"]
    assert f"{name}" in text
    assert "nothing leaves the machine" in text


def test_the_closed_endpoint_takes_any_request(running):
    server = running()
    for path, method in (("/_closed", "GET"), ("/_closed/x?y=/s3/aws4_request", "POST")):
        request = urllib.request.Request(server.endpoint + path, b"\xff" * 1000, method=method)
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request)
        assert raised.value.code == 403
        assert b"nothing leaves the machine" in raised.value.read()
        raised.value.close()
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(f"{server.endpoint}/_closedness")
    assert raised.value.code == 404
    raised.value.close()
