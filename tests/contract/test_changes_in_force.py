"""A change is in force when its call has returned; for other processes, within a second.

With one process, each change is followed at once by a mail or a call. With two workers, changes are
made by another process, as commands make them: a second later no worker may have the old state.
"""

import asyncio
import json
import smtplib
import time
from collections import deque
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sendback.app import App
from sendback.config.loading import load
from sendback.receipt.filters import FilterPolicy, IpFilter
from sendback.receipt.model import AddHeaderAction, Rule
from sendback.store.access.accounts import AddAccount
from sendback.store.identities.identities import (
    Identity,
    IdentityKind,
    PutIdentity,
    VerificationStatus,
)
from sendback.store.rules.filters import AddFilter
from sendback.store.rules.rule_sets import ActivateRuleSet, PutRuleSet
from tests.conftest import NOW
from tests.contract.errors import error
from tests.partners.clients import ses as ses_client
from tests.partners.sendback import Sendback

TIMES = 200
ACCOUNT = "000000000000"
LATEST_SECONDS = 1.0
# Connections for each question: both workers get some of them.
CONNECTIONS = 6
WHO = ("bob", "eve")

BLOCK = {"Name": "all", "IpFilter": {"Policy": "Block", "Cidr": "127.0.0.0/8"}}
NO_LISTING = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {"Effect": "Allow", "Action": "ses:GetSendQuota", "Resource": "*"},
    }
)
LISTING = NO_LISTING.replace("GetSendQuota", "ListIdentities")
NOBODY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "ses:SendBounce",
            "Resource": f"arn:aws:ses:us-east-1:{ACCOUNT}:identity/example.com",
        },
    }
)
UNKNOWN_KEY = ("InvalidClientTokenId", "The security token included in the request is invalid.")


def connected(port, source="127.0.0.1"):
    """The code of the greeting."""
    try:
        with smtplib.SMTP("127.0.0.1", port, source_address=(source, 0)) as smtp:
            return 220 if smtp.noop()[0] == 250 else 0
    except smtplib.SMTPConnectError as refused:
        return refused.smtp_code


def asked(port, recipient="bob@example.com"):
    """The code of the reply to RCPT."""
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        smtp.ehlo("mx.sender.example")
        smtp.mail("ann@sender.example")
        return smtp.rcpt(recipient)[0]


# --- one process --------------------------------------------------------------------------------


def test_a_filter_counts_for_the_next_connection(server):
    ses, port = server.ses, server.smtp_port
    for _ in range(TIMES):
        ses.create_receipt_filter(Filter=BLOCK)
        assert connected(port) == 554
        ses.delete_receipt_filter(FilterName="all")
        assert connected(port) == 220


def test_a_filter_counts_for_the_next_recipient_of_a_connection(server):
    ses = server.ses
    for _ in range(TIMES):
        with smtplib.SMTP("127.0.0.1", server.smtp_port) as smtp:
            smtp.ehlo("mx.sender.example")
            smtp.mail("ann@sender.example")
            assert smtp.rcpt("bob@example.com")[0] == 250
            ses.create_receipt_filter(Filter=BLOCK)
            assert smtp.rcpt("bob@example.com")[0] == 550
            ses.delete_receipt_filter(FilterName="all")
            assert smtp.rcpt("bob@example.com")[0] == 250


def test_a_deleted_identity_receives_nothing_more(server):
    ses, port = server.ses, server.smtp_port
    for _ in range(TIMES):
        assert asked(port) == 250
        ses.delete_identity(Identity="example.com")
        assert asked(port) == 550
        ses.verify_domain_identity(Domain="example.com")


def test_the_active_rule_set_decides_on_the_next_recipient(server):
    ses, port = server.ses, server.smtp_port
    for name in WHO:
        ses.create_receipt_rule_set(RuleSetName=name)
        action = {"AddHeaderAction": {"HeaderName": "X-A", "HeaderValue": "b"}}
        rule = {"Name": "r", "Enabled": True, "Recipients": [f"{name}@example.com"]}
        ses.create_receipt_rule(RuleSetName=name, Rule={**rule, "Actions": [action]})
    for _ in range(TIMES):
        ses.set_active_receipt_rule_set(RuleSetName="bob")
        assert (asked(port), asked(port, "eve@example.com")) == (250, 550)
        ses.set_active_receipt_rule_set(RuleSetName="eve")
        assert (asked(port), asked(port, "eve@example.com")) == (550, 250)


def test_a_users_policy_decides_on_the_next_call(server):
    accounts, ses = server.app.accounts, server.ses_of(ACCOUNT, "ann")
    for _ in range(TIMES):
        server.run(accounts.put_policy(ACCOUNT, "ann", "p", LISTING))
        assert ses.list_identities()["Identities"] == ["example.com"]
        server.run(accounts.put_policy(ACCOUNT, "ann", "p", NO_LISTING))
        assert error(ses.list_identities)[0] == "AccessDenied"


def test_an_identitys_policy_decides_on_the_next_bounce(server):
    ses, message = server.ses, server.send_mail()
    bounce = {
        "OriginalMessageId": message,
        "BounceSender": "mailer-daemon@example.com",
        "BouncedRecipientInfoList": [{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
    }
    for _ in range(TIMES):
        ses.put_identity_policy(Identity="example.com", PolicyName="p", Policy=NOBODY)
        assert error(ses.send_bounce, **bounce)[0] == "AccessDenied"
        ses.delete_identity_policy(Identity="example.com", PolicyName="p")
        assert ses.send_bounce(**bounce)["MessageId"]


def test_a_key_is_disabled_and_enabled_for_the_next_call(server):
    issued = server.issue(ACCOUNT, "root")
    ses = server.ses_client(key=issued.key.access_key, secret=issued.secret)
    keys, name = server.app.keys, issued.key.access_key
    for _ in range(TIMES):
        assert ses.list_identities()["Identities"] == ["example.com"]
        assert server.run(keys.set_enabled(ACCOUNT, name, enabled=False))
        assert error(ses.list_identities) == UNKNOWN_KEY
        assert server.run(keys.set_enabled(ACCOUNT, name, enabled=True))


def test_a_deleted_key_signs_no_more(server):
    for _ in range(TIMES):
        issued = server.issue(ACCOUNT, "root")
        assert listed(server.endpoint, issued) == 200
        assert server.run(server.app.keys.delete(ACCOUNT, issued.key.access_key))
        assert listed(server.endpoint, issued) == 403


def listed(endpoint, issued):
    """The status of a ListIdentities, on a connection of its own: a boto3 client costs more."""
    request = AWSRequest(
        method="POST",
        url=endpoint + "/",
        data=b"Action=ListIdentities&Version=2010-12-01",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    credentials = Credentials(issued.key.access_key, issued.secret)
    SigV4Auth(credentials, "ses", "us-east-1").add_auth(request)
    signed = Request(request.url, request.data, dict(request.headers))
    try:
        with urlopen(signed, timeout=20) as response:
            return response.status
    except HTTPError as refused:
        refused.close()
        return refused.code


# --- two workers, and changes by another process ------------------------------------------------


@pytest.fixture
def two_workers(tmp_path):
    with Sendback(tmp_path, ("--workers", "2")) as server:
        yield server


@pytest.fixture
def other(two_workers):
    """The services of another process on the same store, as a command has them."""
    given = {"data_dir": str(two_workers.data_dir)}
    app = App(load(given, environ={}).settings)
    yield app
    app.close()


def prepare(app, *units):
    """Run the units in one transaction."""
    asyncio.run(app.store.write(lambda connection: [unit(connection) for unit in units]))


def assert_in_force_within_a_second(change, ask, before, after):
    """Make each change and ask at once, which may get either answer; ask again after a second.

    Other changes follow meanwhile. The first answer is cached: it must not outlive the second.
    """
    waiting = deque()
    for number in range(TIMES):
        assert ask(number) == before
        change(number)
        waiting.append((time.monotonic() + LATEST_SECONDS, number))
        assert ask(number) in (before, after)
        while waiting and waiting[0][0] <= time.monotonic():
            ask_again(waiting.popleft(), ask, after)
    while waiting:
        ask_again(waiting.popleft(), ask, after)


def ask_again(entry, ask, after):
    due, number = entry
    time.sleep(max(0.0, due - time.monotonic()))
    assert [ask(number) for _ in range(CONNECTIONS)] == [after] * CONNECTIONS


def test_filters_made_by_another_process(two_workers, other):
    def block(number):
        entry = IpFilter(f"f{number}", FilterPolicy.BLOCK, f"127.0.1.{number}")
        prepare(other, AddFilter(ACCOUNT, entry, TIMES))

    port = two_workers.smtp_port
    assert_in_force_within_a_second(
        block, lambda number: connected(port, f"127.0.1.{number}"), 220, 554
    )


def test_identities_deleted_by_the_other_worker(two_workers, other):
    prepare(other, *(PutIdentity(domain(ACCOUNT, number)) for number in range(TIMES)))
    ses, port = ses_client(two_workers.endpoint), two_workers.smtp_port
    assert_in_force_within_a_second(
        lambda number: ses.delete_identity(Identity=f"d{number}.example"),
        lambda number: asked(port, f"bob@d{number}.example"),
        250,
        550,
    )


def test_rule_sets_activated_by_another_process(two_workers, other):
    for number in range(TIMES):
        name = f"{number:012}"
        prepare(
            other,
            AddAccount(name, NOW),
            PutIdentity(domain(name, number)),
            *(PutRuleSet(name, who, NOW, rules(f"{who}@d{number}.example")) for who in WHO),
            ActivateRuleSet(name, "bob"),
        )
    port = two_workers.smtp_port
    assert_in_force_within_a_second(
        lambda number: prepare(other, ActivateRuleSet(f"{number:012}", "eve")),
        lambda number: asked(port, f"bob@d{number}.example"),
        250,
        550,
    )


def test_keys_deleted_by_another_process(two_workers, other):
    issued = [asyncio.run(other.keys.create(ACCOUNT, "root")) for _ in range(TIMES)]
    assert_in_force_within_a_second(
        lambda number: asyncio.run(other.keys.delete(ACCOUNT, issued[number].key.access_key)),
        lambda number: listed(two_workers.endpoint, issued[number]),
        200,
        403,
    )


def test_policies_put_by_another_process(two_workers, other):
    issued = []
    for number in range(TIMES):
        asyncio.run(other.accounts.create_user(ACCOUNT, f"u{number}"))
        issued.append(asyncio.run(other.keys.create(ACCOUNT, f"u{number}")))
    put = other.accounts.put_policy
    assert_in_force_within_a_second(
        lambda number: asyncio.run(put(ACCOUNT, f"u{number}", "p", NO_LISTING)),
        lambda number: listed(two_workers.endpoint, issued[number]),
        200,
        403,
    )


def test_rules_applied_by_a_command(two_workers, tmp_path):
    """The command itself, as an operator runs it."""
    file = tmp_path / "rules.toml"
    file.write_text('[[filters]]\nName = "all"\nPolicy = "Block"\nCidr = "127.0.0.0/8"\n')
    port = two_workers.smtp_port
    assert connected(port) == 220
    two_workers.run("rules", "apply", str(file))
    time.sleep(LATEST_SECONDS)
    assert [connected(port) for _ in range(CONNECTIONS)] == [554] * CONNECTIONS


def domain(account_id, number):
    name, status = f"d{number}.example", VerificationStatus.SUCCESS
    return Identity(account_id, name, IdentityKind.DOMAIN, status, f"token{number}", NOW)


def rules(recipient):
    actions = (AddHeaderAction("X-A", "b"),)
    return (Rule("r", enabled=True, recipients=(recipient,), actions=actions),)
