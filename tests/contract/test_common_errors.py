"""Each common error that a client can cause, and that nobody unsigned learns anything."""

import base64
import http.client
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from unittest import mock
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import boto3
import botocore.auth
import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.partners.postgresql import write_lock

NAMESPACE = "{http://ses.amazonaws.com/doc/2010-12-01/}"
LIST = {"Action": "ListIdentities", "Version": "2010-12-01"}


def post(
    server,
    parameters,
    *,
    key="test",
    secret="test",
    region="us-east-1",
    token=None,
    sign=True,
    **raw,
):
    """The code, HTTP status and text of an error; the body of a success."""
    body = raw.get("body", urlencode(parameters).encode() if parameters is not None else b"")
    request = AWSRequest("POST", f"{server.endpoint}/", data=body)
    request.headers["Host"] = str(server.addresses.http)
    if sign:
        service = raw.get("service", "ses")
        SigV4Auth(Credentials(key, secret, token), service, region).add_auth(request)
    headers = {**dict(request.headers), **raw.get("headers", {})}
    return fetch(f"{server.endpoint}/", headers, body)


def fetch(url, headers=None, body=None):
    request = urllib.request.Request(url, data=body, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        root = ET.fromstring(error.read())
        assert root.tag == f"{NAMESPACE}ErrorResponse"
        found = root.find(f"{NAMESPACE}Error")
        request_id = root.findtext(f"{NAMESPACE}RequestId")
        assert error.headers["x-amzn-RequestId"] == request_id
        assert error.headers["Content-Type"].startswith("text/xml")
        fault = found.findtext(f"{NAMESPACE}Type")
        assert fault == ("Sender" if error.code < 500 else "Receiver")
        return (
            found.findtext(f"{NAMESPACE}Code"),
            error.code,
            found.findtext(f"{NAMESPACE}Message"),
        )


def test_a_signed_request_succeeds(server):
    assert "<member>example.com</member>" in post(server, LIST)


def test_get_with_a_presigned_query_succeeds(server):
    request = AWSRequest("GET", f"{server.endpoint}/?{urlencode(LIST)}")
    SigV4QueryAuth(Credentials("test", "test"), "ses", "us-east-1", 60).add_auth(request)
    assert "<member>example.com</member>" in fetch(request.url)


def test_botos_own_presigned_url_succeeds(server):
    url = server.ses.generate_presigned_url("list_identities", HttpMethod="GET")
    assert "<member>example.com</member>" in fetch(url)


def test_unsigned(server):
    assert post(server, LIST, sign=False)[:2] == ("MissingAuthenticationToken", 403)


def test_an_unknown_key(server):
    assert post(server, LIST, key="AKIANOBODY")[:2] == ("InvalidClientTokenId", 403)


def test_a_session_token_that_was_never_issued(server):
    assert post(server, LIST, token="forged")[:2] == ("InvalidClientTokenId", 403)


def test_wrongly_signed(server):
    code, status, text = post(server, LIST, secret="wrong")
    assert (code, status) == ("SignatureDoesNotMatch", 403)
    assert text.startswith("The request signature we calculated does not match")


def test_signed_for_another_region(server):
    code, status, text = post(server, LIST, region="eu-west-1")
    assert (code, status) == ("SignatureDoesNotMatch", 403)
    assert "valid region" in text


def test_signed_for_another_service(server):
    code, status, text = post(server, LIST, service="sqs")
    assert (code, status) == ("SignatureDoesNotMatch", 403)
    assert "correct service" in text


def test_signed_too_long_ago(server):
    past = datetime.now(UTC) - timedelta(minutes=16)
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: past, create=True):
        code, status, _ = post(server, LIST)
    assert (code, status) == ("RequestExpired", 400)


def test_an_incomplete_signature(server):
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/x"}
    assert post(server, LIST, headers=headers)[:2] == ("IncompleteSignature", 400)


def test_credentials_in_header_and_query(server):
    request = AWSRequest("GET", f"{server.endpoint}/?{urlencode(LIST)}")
    SigV4QueryAuth(Credentials("test", "test"), "ses", "us-east-1", 60).add_auth(request)
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/x"}
    assert fetch(request.url, headers)[:2] == ("InvalidParameterCombination", 400)


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00", b"Action=%FF%FE", b"ActionListIdentities", b"&&", "Ä=1".encode()]
)
def test_an_unparsable_request(server, body):
    assert post(server, None, body=body)[:2] == ("MalformedQueryString", 404)


def test_no_action(server):
    assert post(server, {"Version": "2010-12-01"})[:2] == ("MissingAction", 400)
    assert post(server, None)[:2] == ("MissingAction", 400)


def test_an_unknown_action(server):
    found = post(server, {"Action": "Frobnicate", "Version": "2010-12-01"})
    assert found == (
        "InvalidAction",
        400,
        "Could not find operation Frobnicate for version 2010-12-01",
    )


def test_an_action_that_is_not_built_yet_says_so(server):
    with pytest.raises(ClientError) as caught:
        server.ses.list_templates()
    assert caught.value.response["Error"]["Code"] == "InvalidAction"
    assert "not built yet" in caught.value.response["Error"]["Message"]


def test_an_unknown_action_unsigned_is_unsigned_first(server):
    found = post(server, {"Action": "Frobnicate", "Version": "2010-12-01"}, sign=False)
    assert found[0] == "MissingAuthenticationToken"


def test_a_wrong_version(server):
    code, status, text = post(server, {"Action": "ListIdentities", "Version": "2009-01-01"})
    assert (code, status) == ("InvalidParameterValue", 400)
    assert "2010-12-01" in text


def test_an_empty_version(server):
    found = post(server, {"Action": "ListIdentities", "Version": ""})
    assert found[:2] == ("InvalidParameterValue", 400)


def test_a_parameter_that_occurs_twice(server):
    body = urlencode([*LIST.items(), ("MaxItems", "1"), ("MaxItems", "2")]).encode()
    assert post(server, None, body=body)[:2] == ("InvalidQueryParameter", 400)


def test_a_structure_where_a_value_belongs(server):
    assert post(server, {**LIST, "MaxItems.x": "1"})[:2] == ("InvalidQueryParameter", 400)


def test_a_value_of_the_wrong_type(server):
    assert post(server, {**LIST, "MaxItems": "many"})[:2] == ("InvalidParameterValue", 400)


def test_a_request_that_is_too_large(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.addresses.http.port, timeout=20)
    connection.putrequest("POST", "/")
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    try:
        for _ in range(80):
            connection.send(b"x" * 2**20)
        connection.send(b"")
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was answered before all of it had come
    response = connection.getresponse()
    assert response.status == 413
    assert b"RequestEntityTooLarge" in response.read()
    connection.close()


def test_a_store_that_cannot_be_written_is_unavailable_and_recovers_by_itself(running):
    server = running(send_bounce_rate="0")
    with write_lock(server.settings.database_url), pytest.raises(ClientError) as caught:
        server.ses_client(read_timeout=30).verify_domain_identity(Domain="example.com")
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert server.ses.verify_domain_identity(Domain="example.com")["VerificationToken"]


def test_a_fault_of_ours_is_an_internal_failure_without_details(server):
    with mock.patch.object(
        server.app.identities, "list", side_effect=RuntimeError("a secret detail")
    ):
        code, status, text = post(server, LIST)
    assert (code, status) == ("InternalFailure", 500)
    assert "secret" not in text


def test_a_key_of_ones_own(server):
    signer = server.issue("000000000000", "ann")
    assert "ListIdentitiesResponse" in post(
        server, LIST, key=signer.key.access_key, secret=signer.secret
    )
    server.run(server.app.keys.delete("000000000000", signer.key.access_key))
    found = post(server, LIST, key=signer.key.access_key, secret=signer.secret)
    assert found[0] == "InvalidClientTokenId"


def test_health(server):
    assert fetch(f"{server.endpoint}/healthz") == "ok\n"
    assert fetch(f"{server.endpoint}/readyz") == "ready\n"


def test_older_signature_version_4_names_of_the_service(server):
    assert "ListIdentitiesResponse" in post(server, LIST, service="email")


def test_basic_authentication_is_no_credentials(server):
    value = "Basic " + base64.b64encode(b"test:test").decode()
    found = post(server, LIST, sign=False, headers={"Authorization": value})
    assert found[0] == "IncompleteSignature"


def test_the_default_boto3_client_works_by_environment(server, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SES", server.endpoint)
    assert boto3.client("ses").list_identities()["Identities"] == ["example.com"]
