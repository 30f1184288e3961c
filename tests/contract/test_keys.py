"""Access keys as clients see them: revoked, temporary, recorded."""

import time
from datetime import timedelta

import boto3
import pytest

from tests.contract.errors import error

A, B = "000000000000", "111111111111"
INVALID = (
    "InvalidClientTokenId",
    "The security token included in the request is invalid.",
)


def issue(server, user="ann", account=A):
    return server.issue(account, user)


def temporary(server, user="ann", lasts=timedelta(hours=1), account=A):
    return server.run(server.app.keys.create_temporary(account, user, lasts))


def client(server, issued, token=None):
    return server.ses_client(key=issued.key.access_key, secret=issued.secret, token=token)


def listed(server, issued):
    keys = server.run(server.app.keys.list(None))
    return next(key for key in keys if key.access_key == issued.key.access_key)


def test_several_keys_of_a_user(server):
    for issued in (issue(server), issue(server)):
        assert "example.com" in client(server, issued).list_identities()["Identities"]


def test_a_disabled_key(server):
    issued = issue(server)
    ses = client(server, issued)
    ses.list_identities()
    keys, name = server.app.keys, issued.key.access_key
    assert server.run(keys.set_enabled(A, name, enabled=False))
    assert error(ses.list_identities) == INVALID
    assert server.run(keys.set_enabled(A, name, enabled=True))
    ses.list_identities()
    assert not server.run(keys.set_enabled(B, name, enabled=False))
    assert not server.run(keys.delete(B, name))


def test_temporary_credentials(server, clock):
    server.run(server.app.accounts.create_user(A, "ann"))
    issued = temporary(server)
    assert issued.key.access_key.startswith("ASIA")
    good = client(server, issued, issued.session_token)
    assert good.list_identities()["Identities"] == ["example.com"]
    assert error(client(server, issued).list_identities) == INVALID
    assert error(client(server, issued, "x").list_identities) == INVALID
    clock.advance(timedelta(hours=1))
    assert error(good.list_identities) == (
        "ExpiredToken",
        "The security token included in the request is expired",
    )


def test_a_session_token_with_a_permanent_key(server):
    assert error(client(server, issue(server), "x").list_identities) == INVALID


def test_temporary_credentials_are_for_users_that_there_are(server):
    from sendback.service.access.accounts import AccountError

    with pytest.raises(AccountError, match="has no user nobody"):
        temporary(server, "nobody")
    with pytest.raises(AccountError, match="from 15m to 36h"):
        temporary(server, lasts=timedelta(hours=37))
    assert temporary(server, "root").session_token


def test_temporary_credentials_in_a_presigned_url(server):
    import urllib.request

    issued = temporary(server, "root")
    session = boto3.session.Session(issued.key.access_key, issued.secret, issued.session_token)
    ses = session.client("ses", endpoint_url=server.endpoint, region_name="us-east-1")
    url = ses.generate_presigned_url("list_identities", HttpMethod="GET")
    assert "X-Amz-Security-Token" in url
    with urllib.request.urlopen(url) as answer:
        assert b"example.com" in answer.read()


def test_the_last_use_is_recorded(server, clock):
    issued = issue(server)
    assert listed(server, issued).last_used_at is None
    ses = client(server, issued)
    ses.list_identities()
    first = _wait(lambda: listed(server, issued).last_used_at)
    assert first == clock.now()
    clock.advance(timedelta(minutes=2))
    ses.list_identities()
    assert _wait(lambda: listed(server, issued).last_used_at != first)


def test_a_wrong_signature_is_no_use(server):
    issued = issue(server)
    wrong = server.ses_client(key=issued.key.access_key, secret="wrong")
    assert error(wrong.list_identities)[0] == "SignatureDoesNotMatch"
    time.sleep(0.1)
    assert listed(server, issued).last_used_at is None


def test_the_root_key_is_the_account(server):
    message = server.send_mail()
    root = client(server, issue(server, "root"))
    found = error(
        root.send_bounce,
        OriginalMessageId=message,
        BounceSender="x@example.com",
        BounceSenderArn=f"arn:aws:ses:us-east-1:{B}:identity/example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
    )
    assert found[1].startswith(f"User `arn:aws:iam::{A}:root' is not authorized")


def test_a_deleted_users_keys_are_gone(server):
    issued = issue(server)
    ses = client(server, issued)
    ses.list_identities()
    assert server.run(server.app.accounts.delete_user(A, "ann"))
    assert error(ses.list_identities) == INVALID


def _wait(found):
    deadline = time.monotonic() + 5
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value
