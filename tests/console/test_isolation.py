"""What one account has is nothing to another one, on every page that names a thing."""

import json

import pytest

from sendback.console.routes import PAGES
from tests.console.signing_in import signed_in

OTHER = "444455556666"


@pytest.fixture
def filled(running):
    """A server that asks for a login; the first account has one thing of each kind."""
    server = running(development_key="false", send_bounce_rate="0")
    ses = server.ses_of("000000000000", "root")
    ses.verify_domain_identity(Domain="example.com")
    ses.put_identity_policy(Identity="example.com", PolicyName="p", Policy=POLICY)
    ses.create_receipt_rule_set(RuleSetName="main")
    ses.create_receipt_rule(RuleSetName="main", Rule={"Name": "first", "Enabled": True})
    message_id = server.send_mail(content=b"Subject: secret-subject\r\n\r\nsecret-text\r\n")
    recipients = [{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}]
    answer = ses.send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=recipients,
    )
    server.issue("000000000000", "ann")
    return server, message_id, answer["MessageId"]


POLICY = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
"Action": "ses:SendBounce", "Resource": "arn:aws:ses:us-east-1:000000000000:identity/example.com"}]}
"""


def paths(message_id, bounce_id):
    """Every page that names a thing, with the first account's thing."""
    named = {"set": "main", "identity": "example.com", "account": "000000000000", "user": "ann"}
    for page in PAGES:
        if "{" not in page.path or page.for_operator:
            continue
        key = bounce_id if page.path.startswith("/bounces") else message_id
        path = page.path.format(id=key, number="0", name="t", template="t", **named)
        yield page, f"/console{path}"


def test_the_pages_of_another_account_show_and_change_nothing(filled):
    server, message_id, bounce_id = filled
    stranger = signed_in(server, OTHER)
    tried = 0
    for page, path in paths(message_id, bounce_id):
        if page.method == "GET":
            found = stranger.get(path)
        else:
            stranger.get("/console/password")
            found = stranger.post(path, {"do": "delete", "RuleName": "first", "user": "ann"})
        # (SES deletes an identity that is not there without an error.)
        expected = {400, 403, 404} if page.method == "GET" else {200, 400, 403, 404}
        assert found.status in expected, (page.method, path, found.status)
        assert "secret-" not in found.html, path
        tried += 1
    assert tried > 15
    assert message_id not in stranger.get("/console/mail").html
    assert bounce_id not in stranger.get("/console/bounces").html
    ses = server.ses_of("000000000000", "root")
    assert ses.list_identities()["Identities"] == ["example.com"]
    assert ses.describe_receipt_rule_set(RuleSetName="main")["Rules"][0]["Name"] == "first"
    owner = signed_in(server, "000000000000")
    assert "secret-subject" in owner.get(f"/console/mail/{message_id}").text


def test_bounces_of_another_account_are_not_changed_in_bulk(filled):
    server, _, bounce_id = filled
    stranger = signed_in(server, OTHER)
    stranger.get("/console/bounces")
    done = stranger.post("/console/bounces", {"which": "checked", "id": bounce_id, "do": "retry"})
    assert done.status in {400, 404}


def test_a_user_with_policies_sees_what_they_allow(filled):
    server, message_id, _ = filled
    server.issue("000000000000", "eve")
    allowed = {"Effect": "Allow", "Action": ["ses:List*", "ses:Get*"], "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    server.run(server.app.accounts.put_policy("000000000000", "eve", "p", document))
    eve = signed_in(server, "000000000000", "eve", sees_mail=False)
    assert eve.get("/console/mail").status == 403
    assert eve.get(f"/console/mail/{message_id}/raw").status == 403
    assert eve.get("/console/bounces").status == 403
    assert eve.get("/console/identities").status == 200
    assert eve.get("/console/settings").status == 403
    assert eve.get("/console/accounts/000000000000").status == 403
