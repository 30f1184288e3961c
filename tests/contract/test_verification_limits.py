"""How many verification mails may be sent, by boto3: this server is no weapon against strangers."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from botocore.config import Config

from sendback.store.identities.identities import (
    Identity,
    IdentityKind,
    PutIdentity,
    VerificationStatus,
)
from tests.contract.errors import error
from tests.partners.sendback import Sendback

TEMPLATE = {
    "TemplateName": "welcome",
    "FromEmailAddress": "Team <team@example.com>",
    "TemplateSubject": "Please confirm",
    "TemplateContent": "<h1>Hello</h1>",
    "SuccessRedirectionURL": "https://example.com/yes",
    "FailureRedirectionURL": "https://example.com/no",
}


@pytest.fixture
def proving(running):
    """A server that verifies by mail; its mails are captured."""

    def start(**limits):
        return running(verification="proved", **{k: str(v) for k, v in limits.items()})

    return start


def mails(server):
    return [str(mail.recipient) for mail in server.outbox()]


def refused(ses, address):
    code, text = error(ses.verify_email_identity, EmailAddress=address)
    assert code == "Throttling", text
    return text


def test_an_account_in_an_hour(proving, clock):
    server = proving(verification_account_limit=3)
    ses = server.ses
    for number in range(3):
        ses.verify_email_identity(EmailAddress=f"u{number}@other.example")
    assert "3 verification mails an hour" in refused(ses, "u3@other.example")
    assert len(mails(server)) == 3
    assert "u3@other.example" not in ses.list_identities()["Identities"]  # nothing is half done
    clock.advance(timedelta(minutes=61))
    ses.verify_email_identity(EmailAddress="u3@other.example")


def test_the_defaults(proving):
    server = proving()
    ses = server.ses
    for number in range(50):
        ses.verify_email_identity(EmailAddress=f"u{number}@other.example")
    for number in range(50, 200):
        assert refused(ses, f"u{number}@other.example")
    assert len(mails(server)) == 50


SPELLINGS = [
    "ann@other.example",
    "Ann@Other.Example",
    "ann+1@other.example",
    "ann+2+3@OTHER.example",
    "a.n.n@other.example",
    '"ann"@other.example',
    '"a\\nn+4"@other.example',
    "aNN@other.example",
]


def test_an_address_in_a_day_however_it_is_spelt(proving, clock):
    server = proving(verification_address_limit=2, verification_account_limit=0)
    ses = server.ses
    for address in SPELLINGS[:2]:
        ses.verify_email_identity(EmailAddress=address)
    for address in SPELLINGS:
        assert "2 verification mails a day to this address" in refused(ses, address)
    ses.verify_email_identity(EmailAddress="anna@other.example")
    ses.verify_email_identity(EmailAddress="ann@another.example")
    clock.advance(timedelta(hours=25))
    ses.verify_email_identity(EmailAddress="ann@other.example")


def test_asking_again_for_an_address_that_waits_counts(proving):
    server = proving(verification_address_limit=2)
    ses = server.ses
    for _ in range(2):
        ses.verify_email_identity(EmailAddress="ann@other.example")
    refused(ses, "ann@other.example")
    ses.delete_identity(Identity="ann@other.example")
    refused(ses, "ann@other.example")


def test_in_all_over_accounts(proving):
    server = proving(verification_limit=2)
    ses = server.ses
    ses.verify_email_identity(EmailAddress="u1@other.example")
    ses.verify_email_identity(EmailAddress="u2@other.example")
    refused(ses, "u3@other.example")


def test_custom_mails_count_too(proving, clock):
    server = proving(verification_address_limit=2, verification_account_limit=0)
    ses = server.ses
    verified = Identity(
        "000000000000",
        "example.com",
        IdentityKind.DOMAIN,
        VerificationStatus.SUCCESS,
        "token",
        clock.now(),
    )
    server.run(server.app.store.write(PutIdentity(verified)))
    ses.create_custom_verification_email_template(**TEMPLATE)
    send = ses.send_custom_verification_email
    ses.verify_email_identity(EmailAddress="ann@other.example")
    send(TemplateName="welcome", EmailAddress="ann@other.example")
    code, _ = error(send, TemplateName="welcome", EmailAddress="ann+x@other.example")
    assert code == "Throttling"
    assert len(mails(server)) == 2


def test_zero_is_unlimited(proving):
    server = proving(
        verification_account_limit=0, verification_address_limit=0, verification_limit=0
    )
    ses = server.ses
    for _ in range(60):
        ses.verify_email_identity(EmailAddress="ann@other.example")
    assert len(mails(server)) == 60


def test_what_sends_no_mail_is_not_limited(running):
    server = running(verification="at_once", verification_account_limit="1")
    for number in range(5):
        server.ses.verify_email_identity(EmailAddress=f"u{number}@other.example")
    for number in range(5):
        server.ses.verify_domain_identity(Domain=f"d{number}.example")
    assert mails(server) == []


def test_the_limit_holds_over_several_workers(tmp_path):
    environment = {"SENDBACK_VERIFICATION": "proved", "SENDBACK_VERIFICATION_ACCOUNT_LIMIT": "7"}
    with Sendback(tmp_path, flags=("--workers", "2"), environment=environment) as server:
        import boto3

        def ask(number):
            ses = boto3.session.Session().client(
                "ses", endpoint_url=server.endpoint, region_name="us-east-1",
                aws_access_key_id="test", aws_secret_access_key="test",
                config=Config(retries={"total_max_attempts": 1}),
            )  # fmt: skip
            try:
                ses.verify_email_identity(EmailAddress=f"u{number}@other.example")
            except ses.exceptions.ClientError as refusal:
                return refusal.response["Error"]["Code"]
            return "sent"

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(24)))
        assert sorted(set(answers)) == ["Throttling", "sent"]
        assert answers.count("sent") == 7
        assert len(server.json("outbox", "list")) == 7


@pytest.mark.sqlite("a small table is read without its index by PostgreSQL")
def test_counting_uses_the_index(proving):
    """Else it would walk through all bounces of a day in the transaction that writes."""
    server = proving()
    for columns in ("count(*)", "recipient"):
        query = f"SELECT {columns} FROM outbox WHERE original_message_id = '' AND created_at > 5"
        (*_, plan), *_ = server.query(f"EXPLAIN QUERY PLAN {query}")
        assert "outbox_verifications" in plan
