"""Identities, their policies, accounts, users and keys in the console."""

import json

import boto3
import pytest

DOMAIN = "/console/identities/example.com"
OWN = "/console/accounts/000000000000"
OTHER = "111111111111"


def test_identities_are_verified_and_deleted(server, console):
    path = "/console/identities"
    assert "example.com" in console.get(path).text
    shown = console.post(path, {"Identity": "ann@x.example"})
    assert "verification of ann@x.example is requested" in shown.text
    keys = console.post(path, {"Identity": "y.example", "dkim": "true"})
    assert "_domainkey.y.example" in keys.text
    wrong = console.post(path, {"Identity": "not a domain"})
    assert wrong.status == 400
    assert "aria-invalid" in wrong.html
    deleted = console.post(f"{path}/ann%40x.example", {"do": "delete"})
    assert "is deleted" in deleted.text
    assert console.get(f"{path}/ann%40x.example").status == 404


def test_identities_are_found_by_their_beginning_and_paged(server, console):
    for number in range(101):
        server.ses.verify_email_identity(EmailAddress=f"u{number:03}@x.example")
    server.ses.verify_domain_dkim(Domain="example.com")
    server.ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="b.example.com")
    first = console.get("/console/identities?prefix=example")
    for text in ("Success", "b.example.com", "does not sign"):
        assert text in first.text
    assert "u000" not in first.text
    assert "No identity begins with 50%_" in console.get("/console/identities?prefix=50%25_").text
    page = console.get("/console/identities?prefix=U")
    assert "u099@" in page.text
    assert "u100@" not in page.text
    more = page.html.partition('class="more"><a href="')[2].partition('"')[0]
    assert "u100@x.example" in console.get(more.replace("&amp;", "&")).text


def test_the_records_and_keys_of_a_domain(server, console):
    page = console.get(DOMAIN)
    assert "_amazonses.example.com" in page.text
    assert "No keys yet" in page.text
    assert "has DKIM keys" in console.post(DOMAIN, {"do": "dkim"}).text
    assert "is signed" in console.post(DOMAIN, {"do": "sign", "Enabled": "true"}).text
    assert console.post(DOMAIN, {"do": "rotate"}).status in {200, 409}
    assert "looked up" in console.post(DOMAIN, {"do": "check"}).text
    assert console.post(DOMAIN, {"do": "explode"}).status == 400


def test_the_settings_of_an_identity(server, console):
    console.get(DOMAIN)
    changed = console.post(DOMAIN, {"do": "mail_from", "MailFromDomain": "b.example.com"})
    assert "MAIL FROM domain of example.com is b.example.com" in changed.text
    wrong = console.post(DOMAIN, {"do": "mail_from", "MailFromDomain": "elsewhere.example"})
    assert wrong.status == 400
    fields = {"do": "topic", "NotificationType": "Bounce", "SnsTopic": "nonsense"}
    assert console.post(DOMAIN, fields).status == 400
    assert "is not forwarded" in console.post(
        DOMAIN, {"do": "forward", "Enabled": "false"}
    ).text or ("Feedback" in console.get(DOMAIN).text)


def test_policies_and_the_simulator(server, console):
    path = f"{DOMAIN}/policies"
    example = console.get(path).form(path)["Policy"]
    assert json.loads(example)["Statement"]
    fields = {"do": "put", "PolicyName": "them", "Policy": example}
    assert "Policy them of example.com is written" in console.post(path, fields).text
    wrong = console.post(path, {**fields, "Policy": "{}"})
    assert wrong.status == 400
    assert "InvalidPolicy" in wrong.text
    asked = {"do": "simulate", "account": OTHER, "sender": "a@example.com"}
    assert "Permitted: " in console.post(path, asked).text
    refused = console.post(path, {**asked, "account": "222222222222"})
    assert "Refused: no statement allows it" in refused.text
    for field, value in (("sender", "@"), ("at", "tomorrow")):
        wrong = console.post(path, {**asked, field: value})
        assert wrong.status == 400
        invalid = wrong.html.partition(f'name="{field}"')[2].partition(">")[0]
        assert 'aria-invalid="true"' in invalid
    assert "is deleted" in console.post(path, {"do": "delete", "PolicyName": "them"}).text
    assert console.get("/console/identities/nobody.example/policies").status == 404


def test_accounts_users_and_keys(server, console):
    created = console.get("/console/accounts")
    created = console.post("/console/accounts", {"account_id": OTHER, "name": "Other"})
    assert f"Account {OTHER} is created" in created.text
    assert console.post("/console/accounts", {"account_id": "12"}).status == 400
    assert "User ann is created" in console.post(OWN, {"do": "create_user", "user": "ann"}).text
    assert console.post(OWN, {"do": "create_user", "user": "a b"}).status == 400
    page = console.post(OWN, {"do": "create_key", "user": "ann"})
    assert "not shown again" in page.text
    key = page.html.partition('id="new-key">')[2].partition("<")[0]
    secret = page.html.partition('id="new-secret">')[2].partition("<")[0]
    client = server.ses_client(key=key, secret=secret)
    assert client.list_identities()["Identities"] == ["example.com"]
    assert secret not in console.get(OWN).html
    policy = {"do": "put_policy", "user": "ann", "policy_name": "p"}
    assert console.post(OWN, {**policy, "document": "{}"}).status == 400
    document = {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "ses:List*", "Resource": "*"}]}  # fmt: skip
    assert "is written" in console.post(OWN, {**policy, "document": json.dumps(document)}).text
    for change, text in (
        ({"do": "disable_key", "key": key}, "is disabled"),
        ({"do": "enable_key", "key": key}, "is enabled"),
        ({"do": "delete_policy", "user": "ann", "policy_name": "p"}, "is deleted"),
        ({"do": "delete_key", "key": key}, "is deleted"),
        ({"do": "delete_user", "user": "ann"}, "is deleted"),
    ):
        assert text in console.post(OWN, change).text
    assert console.post(OWN, {"do": "delete_key", "key": key}).status == 404
    assert console.post(OWN, {"do": "explode"}).status == 400
    assert console.get("/console/accounts/999999999999").status == 404


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"do": "create_key", "user": "root"}, "of root is created."),
        ({"do": "create_temporary", "user": "root", "lasts": "1"}, "of root is created, for 1"),
    ],
)
def test_a_new_key_leaves_a_line_without_its_secret(server, console, fields, text):
    console.get(OWN)
    page = console.post(OWN, fields)
    assert page.path == OWN
    line = console.get("/console/audit")
    assert text in line.text
    for name in ("secret", "token"):
        shown = page.html.partition(f'id="new-{name}">')[2].partition("<")[0]
        assert not shown or shown not in line.html + console.get(OWN).html


def test_temporary_credentials(server, console):
    console.get(OWN)
    page = console.post(OWN, {"do": "create_temporary", "user": "root", "lasts": "12"})
    key, secret, token = (
        page.html.partition(f'id="new-{name}">')[2].partition("<")[0]
        for name in ("key", "secret", "token")
    )
    client = boto3.client(
        "ses",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
    )
    assert client.list_identities()["Identities"] == ["example.com"]
    wrong = {"do": "create_temporary", "user": "root", "lasts": "1000"}
    assert console.post(OWN, wrong).status == 400
    nobody = {"do": "create_temporary", "user": "nobody", "lasts": "1"}
    assert console.post(OWN, nobody).status == 400


def test_what_was_sent(server, console):
    assert "Nothing was sent" in console.get(f"{OWN}/sending").text
    message_id = server.send_mail()
    recipients = [{"Recipient": "bob@example.com", "BounceType": "ContentRejected"}]
    sender = "mailer-daemon@example.com"
    server.ses.send_bounce(
        OriginalMessageId=message_id, BounceSender=sender, BouncedRecipientInfoList=recipients
    )
    page = console.get(f"{OWN}/sending")
    assert "SentLast24Hours 1" in page.text
    assert "Nothing was sent" not in page.text
    console.post("/console/accounts", {"account_id": OTHER, "name": "Other"})
    assert console.get(f"/console/accounts/{OTHER}/sending").status == 404


@pytest.mark.parametrize("path", ["/console/identities", "/console/accounts", "/console/settings"])
def test_hostile_names_are_text(server, console, path):
    server.ses.verify_email_identity(EmailAddress='"<script>x</script>"@x.example')
    page = console.get(path)
    assert "<script>x" not in page.html
