"""Requests that botocore signed, the signer of all Python clients."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sendback.aws.errors import SesError
from sendback.aws.sigv4 import SignedRequest, read_credentials, verify

URL = "http://127.0.0.1:4579/"
BODY = "Action=ListIdentities&Version=2010-12-01"


def signed(
    *, secret="secret", region="us-east-1", service="ses", token=None, **headers
) -> SignedRequest:
    request = AWSRequest("POST", URL, headers={"Host": "127.0.0.1:4579", **headers}, data=BODY)
    SigV4Auth(Credentials("AKIA1", secret, token), service, region).add_auth(request)
    lower = {name.lower(): value for name, value in request.headers.items()}
    return SignedRequest("POST", "/", (), lower, BODY.encode())


def presigned(expires: int = 60) -> SignedRequest:
    request = AWSRequest("GET", f"{URL}?{BODY}&Name=a%20b%2Fc~%C3%A4", headers={})
    SigV4QueryAuth(Credentials("AKIA1", "secret"), "ses", "us-east-1", expires).add_auth(request)
    query = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    return SignedRequest("GET", "/", query, {"host": "127.0.0.1:4579"}, b"")


def check(request: SignedRequest, *, secret="secret", region="us-east-1", later=timedelta(0)):
    credentials = read_credentials(request)
    verify(request, credentials, secret, region, datetime.now(UTC) + later)
    return credentials


def code(request: SignedRequest, **options) -> str:
    with pytest.raises(SesError) as caught:
        check(request, **options)
    assert "secret" not in caught.value.message.lower().replace("secret access key", "")
    return caught.value.code


def test_accepts_what_botocore_signs_in_the_header():
    assert check(signed()).access_key == "AKIA1"


def test_accepts_what_botocore_presigns():
    assert check(presigned()).access_key == "AKIA1"


def test_accepts_the_service_name_that_older_tools_sign():
    check(signed(service="email"))


def test_a_wrong_secret_does_not_match():
    assert code(signed(secret="other")) == "SignatureDoesNotMatch"


def test_a_changed_body_does_not_match():
    assert code(replace(signed(), body=b"Action=DeleteIdentity")) == "SignatureDoesNotMatch"


def test_a_changed_query_does_not_match():
    request = presigned()
    changed = [(name, "x" if name == "Action" else value) for name, value in request.query]
    assert code(replace(request, query=changed)) == "SignatureDoesNotMatch"


def test_another_payload_hash_is_no_excuse():
    request = signed()
    headers = {**request.headers, "x-amz-content-sha256": "UNSIGNED-PAYLOAD"}
    assert code(replace(request, headers=headers)) == "SignatureDoesNotMatch"


def test_another_region_or_service_does_not_match():
    assert code(signed(region="eu-west-1")) == "SignatureDoesNotMatch"
    assert code(signed(service="sqs")) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("minutes", [-16, 16])
def test_more_than_fifteen_minutes_off_is_expired(minutes):
    assert code(signed(), later=timedelta(minutes=minutes)) == "RequestExpired"


def test_fourteen_minutes_off_is_not():
    check(signed(), later=timedelta(minutes=14))
    check(signed(), later=timedelta(minutes=-14))


def test_a_presigned_url_expires_when_it_says():
    check(presigned(60), later=timedelta(seconds=50))
    assert code(presigned(60), later=timedelta(seconds=70)) == "RequestExpired"


def test_an_expired_request_with_a_wrong_signature_is_wrong_first():
    assert code(signed(secret="x"), later=timedelta(hours=1)) == "SignatureDoesNotMatch"


def test_every_amz_header_that_was_sent_must_be_signed():
    request = signed()
    headers = {**request.headers, "x-amz-target": "x"}
    assert code(replace(request, headers=headers)) == "SignatureDoesNotMatch"


def test_the_host_must_be_signed():
    request = signed()
    authorization = request.headers["authorization"].replace("host;", "")
    headers = {**request.headers, "authorization": authorization}
    assert code(replace(request, headers=headers)) == "SignatureDoesNotMatch"


def test_every_signed_header_must_have_been_sent():
    request = signed(**{"X-Amz-Extra": "1"})
    headers = {name: value for name, value in request.headers.items() if name != "x-amz-extra"}
    assert code(replace(request, headers=headers)) == "IncompleteSignature"


def test_a_request_without_credentials_lacks_its_token():
    assert code(replace(signed(), headers={"host": "x"})) == "MissingAuthenticationToken"


def test_credentials_in_header_and_query_together_are_refused():
    request = replace(presigned(), headers=signed().headers)
    assert code(request) == "InvalidParameterCombination"


@pytest.mark.parametrize(
    "change",
    [
        ("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        ("Credential=", "Creds="),
        ("Signature=", "Sig="),
        ("SignedHeaders=", "Headers="),
        ("/aws4_request", ""),
        ("AKIA1/", ""),
    ],
)
def test_what_lacks_a_part_is_incomplete(change):
    request = signed()
    authorization = request.headers["authorization"].replace(*change)
    headers = {**request.headers, "authorization": authorization}
    assert code(replace(request, headers=headers)) == "IncompleteSignature"


@pytest.mark.parametrize("date", ["", "yesterday", "20261399T000000Z", "2026-01-01T00:00:00Z"])
def test_a_bad_date_is_incomplete(date):
    request = signed()
    headers = {**request.headers, "x-amz-date": date}
    assert code(replace(request, headers=headers)) == "IncompleteSignature"


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-Amz-Expires", "x"), ("X-Amz-Expires", "604801"), ("X-Amz-Algorithm", "none")],
)
def test_a_bad_presigned_parameter_is_incomplete(name, value):
    request = presigned()
    query = [(key, value if key == name else old) for key, old in request.query]
    assert code(replace(request, query=query)) == "IncompleteSignature"


def test_a_signed_header_may_hold_any_octets():
    octets = "x-amz-note: Grüße".encode().partition(b": ")[2]
    request = signed(**{"X-Amz-Note": "Grüße"})
    headers = {**request.headers, "x-amz-note": octets.decode("utf-8", "surrogateescape")}
    check(replace(request, headers=headers))
    headers["x-amz-note"] = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert code(replace(request, headers=headers)) == "SignatureDoesNotMatch"
