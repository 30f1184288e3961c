"""curl, which signs, sends no Version, and asks for HTTP/2 in clear text."""

import shutil
import subprocess

import pytest

from tests.conftest import need

pytestmark = pytest.mark.sqlite("it tests the client: others test the same calls")


@pytest.fixture(autouse=True)
def installed():
    need("curl", available=bool(shutil.which("curl")))


def curl(server, *arguments):
    done = subprocess.run(
        [
            "curl", "--silent", "--show-error", "--max-time", "20", "--user", "test:test",
            "--aws-sigv4", "aws:amz:us-east-1:ses", *arguments,
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("protocol", ["--http1.0", "--http1.1", "--http2"])
def test_a_call_without_a_version(server, protocol):
    answer = curl(server, protocol, "--data", "Action=ListIdentities", f"{server.endpoint}/")
    assert "<member>example.com</member>" in answer


@pytest.mark.parametrize("method", ["DELETE", "PUT"])
def test_other_methods_with_a_query_string(server, method):
    url = f"{server.endpoint}/?Action=DeleteVerifiedEmailAddress&EmailAddress=ann%40example.com"
    server.ses.verify_email_identity(EmailAddress="ann@example.com")
    assert "DeleteVerifiedEmailAddressResponse" in curl(server, "--request", method, url)
    assert server.ses.list_identities()["Identities"] == ["example.com"]
