"""The small S3 and other clients: the AWS CLI, signed chunks over HTTP, and moto's answers."""

import hashlib
import hmac
import http.client
import os
import subprocess
import sys

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

SETUP = 'identities = ["example.com"]\n[buckets]\nmail = "directory:mail"\n'


@pytest.fixture
def server(running):
    instance = running()
    instance.set_up(SETUP)
    return instance


def aws(server, *arguments):
    given = {
        "PATH": os.environ["PATH"],
        "HOME": str(server.settings.data_dir),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_MAX_ATTEMPTS": "1",
    }
    command = [sys.executable, "-m", "awscli", *arguments]
    return subprocess.run(command, capture_output=True, env=given, timeout=60)


def test_the_aws_cli(server, tmp_path):
    (tmp_path / "mail").write_bytes(b"Subject: Hi\r\n\r\nHello\r\n")
    done = aws(server, "s3", "cp", str(tmp_path / "mail"), "s3://mail/in/one")
    assert done.returncode == 0, done.stderr
    assert aws(server, "s3", "cp", "s3://mail/in/one", "-").stdout.startswith(b"Subject: Hi")
    listed = aws(server, "s3", "ls", "s3://mail/", "--recursive").stdout
    assert listed.split()[-2:] == [b"22", b"in/one"]
    assert aws(server, "s3", "ls", "s3://mail/").stdout.split() == [b"PRE", b"in/"]
    assert aws(server, "s3", "mv", "s3://mail/in/one", "s3://mail/done/one").returncode == 0
    assert aws(server, "s3", "rm", "s3://mail/done/one").returncode == 0
    assert b"NotImplemented" in aws(server, "s3", "mb", "s3://new").stderr


# --- signed chunks ---------------------------------------------------------------------------


def chunked_put(server, body, *, trailer=None, spoil=False):
    """PUT as the AWS SDK for Java does over plain HTTP: each chunk is signed."""
    kind = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")
    headers = {
        "x-amz-content-sha256": kind,
        "x-amz-decoded-content-length": str(len(body)),
        "Content-Encoding": "aws-chunked",
    }
    if trailer:
        headers["x-amz-trailer"] = trailer[0]
    request = AWSRequest("PUT", f"{server.endpoint}/mail/chunked", headers=headers)
    auth = S3SigV4Auth(Credentials("test", "test"), "s3", "us-east-1")
    auth.payload = lambda _: kind
    auth.add_auth(request)
    stamp = request.context["timestamp"]
    scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
    key = b"AWS4test"
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = request.headers["Authorization"].rpartition("=")[2]
    sent = []

    def sign(label, *lines):
        nonlocal signature
        text = "\n".join([f"AWS4-HMAC-SHA256-{label}", stamp, scope, signature, *lines])
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return signature

    empty = hashlib.sha256(b"").hexdigest()
    for at in range(0, len(body) + 65536, 65536):
        chunk = body[at : at + 65536]
        signed = sign("PAYLOAD", empty, hashlib.sha256(chunk).hexdigest())
        if spoil and not chunk:
            signed = "0" * 64
        sent.append(f"{len(chunk):x};chunk-signature={signed}\r\n".encode())
        sent.append(chunk + b"\r\n" if chunk else b"")
        if not chunk:
            break
    if trailer:
        line = f"{trailer[0]}:{trailer[1]}"
        signed = sign("TRAILER", hashlib.sha256(f"{line}\n".encode()).hexdigest())
        sent.append(f"{line}\r\nx-amz-trailer-signature:{signed}\r\n".encode())
    sent.append(b"\r\n")
    content = b"".join(sent)
    connection = http.client.HTTPConnection(server.addresses.http.host, server.addresses.http.port)
    connection.request("PUT", "/mail/chunked", content, dict(request.headers.items()))
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_signed_chunks(server):
    body = bytes(range(256)) * 1000
    path = server.settings.data_dir / "mail/chunked"
    status, answer = chunked_put(server, body)
    assert (status, answer) == (200, b"")
    assert path.read_bytes() == body
    digest = hashlib.sha256(body + b"more").digest()
    import base64

    trailer = ("x-amz-checksum-sha256", base64.b64encode(digest).decode())
    assert chunked_put(server, body + b"more", trailer=trailer) == (200, b"")
    assert path.read_bytes() == body + b"more"
    status, answer = chunked_put(server, body, spoil=True)
    assert status == 403
    assert b"<Code>SignatureDoesNotMatch</Code>" in answer
    status, answer = chunked_put(server, body, trailer=trailer)
    assert status == 400
    assert b"<Code>BadDigest</Code>" in answer
    assert path.read_bytes() == body + b"more"


# --- moto ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moto():
    partner = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    partner.start()
    host, port = partner.get_host_and_port()
    yield f"http://{host}:{port}"
    partner.stop()


def s3_at(endpoint):
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    )


CALLS = [
    ("put_object", {"Key": "a/one", "Body": b"1", "Metadata": {"x": "y"}}),
    ("put_object", {"Key": "a/two", "Body": b"22", "ContentType": "text/plain"}),
    ("put_object", {"Key": "b", "Body": b"0123456789"}),
    ("head_object", {"Key": "a/one"}),
    ("get_object", {"Key": "a/two"}),
    ("get_object", {"Key": "b", "Range": "bytes=2-4"}),
    ("get_object", {"Key": "b", "Range": "bytes=20-"}),
    ("get_object", {"Key": "b", "IfMatch": '"x"'}),
    ("get_object", {"Key": "none"}),
    ("head_object", {"Key": "none"}),
    ("copy_object", {"Key": "c", "CopySource": "mail/a/one"}),
    ("copy_object", {"Key": "c", "CopySource": "mail/none"}),
    ("copy_object", {"Key": "b", "CopySource": "mail/b"}),
    ("head_object", {"Key": "c"}),
    ("list_objects_v2", {}),
    ("list_objects_v2", {"Delimiter": "/"}),
    ("list_objects_v2", {"Prefix": "a/", "MaxKeys": 1}),
    ("list_objects_v2", {"Prefix": "a/", "StartAfter": "a/one"}),
    ("delete_object", {"Key": "a/one"}),
    ("delete_object", {"Key": "a/one"}),
    ("head_bucket", {}),
]
# What is a time, an opaque token, or about the connection or versions that only moto has.
_OTHER = {
    "ResponseMetadata",
    "LastModified",
    "NextContinuationToken",
    "ServerSideEncryption",
    "ChecksumType",
}


def told(call, arguments):
    """What a client sees of an answer, without what may differ."""
    try:
        answer = call(Bucket="mail", **arguments)
    except ClientError as error:
        answer = error.response
        return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]
    found = {name: value for name, value in answer.items() if name not in _OTHER}
    if "Body" in found:
        found["Body"] = found["Body"].read()
    for entry in [*found.get("Contents", []), found.get("CopyObjectResult", {})]:
        entry.pop("LastModified", None)
        for name in [name for name in entry if name.startswith("Checksum")]:
            del entry[name]  # of listings and copies, S3 and moto tell checksums
    return answer["ResponseMetadata"]["HTTPStatusCode"], found


def test_answers_are_those_of_moto(server, moto):
    theirs, ours = s3_at(moto), s3_at(server.endpoint)
    theirs.create_bucket(Bucket="mail")
    for method, arguments in CALLS:
        expected = told(getattr(theirs, method), arguments)
        got = told(getattr(ours, method), arguments)
        assert got == expected, (method, arguments)
