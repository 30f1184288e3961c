"""DKIM signatures on what is delivered: by whose keys, and when none."""

import json
import threading
from datetime import timedelta

import dkim
import pytest

from sendback.service.identities.dns_records import wanted_records
from sendback.store.engine.errors import StoreUnavailableError
from tests.partners.listener import Listener

OTHER = "111111111111"


@pytest.fixture
def sending(running):
    """A server that relays to a listener; answers it and a function that bounces and verifies."""
    with Listener() as listener:
        server = running(send_bounce_rate="0", outbound=listener.url, dkim_ed25519="true")
        server.ses.verify_domain_identity(Domain="example.com")

        def verified(sender="mailer-daemon@example.com", **arguments):
            """The d= and a= tags of each signature, all of which must be good."""
            server.send_bounce(bounce_sender=sender, arguments=arguments)
            content = listener.next().content
            verifier = dkim.DKIM(content)
            found = []
            for number in range(content.count(b"DKIM-Signature:")):
                assert verifier.verify(number, dnsfunc=lambda name, timeout=5: published(name))
                fields = verifier.signature_fields
                found.append((fields[b"d"].decode(), fields[b"a"].decode()))
            return found

        records = {}

        def published(name):
            return records.get(name.decode().rstrip("."))

        def publish(domain, account_id="000000000000"):
            app = server.app
            found = server.run(
                wanted_records(app.store, account_id, domain, server.settings.hostname)
            )
            for record in found:
                records[record.name] = record.value.encode()

        server.verified, server.publish = verified, publish
        yield server


def make_keys(server, domain="example.com"):
    server.ses.verify_domain_dkim(Domain=domain)
    server.ses.set_identity_dkim_enabled(Identity=domain, DkimEnabled=True)
    server.publish(domain)


BOTH = [("example.com", "rsa-sha256"), ("example.com", "ed25519-sha256")]


def test_by_the_domains_keys(sending):
    make_keys(sending)
    assert sorted(sending.verified()) == sorted(BOTH)


def test_without_keys_nothing_is_signed(sending):
    assert sending.verified() == []


def test_where_signing_is_off_nothing_is_signed(sending):
    """As in SES, where keys alone do not sign yet."""
    sending.ses.verify_domain_dkim(Domain="example.com")
    assert sending.verified() == []
    sending.ses.set_identity_dkim_enabled(Identity="example.com", DkimEnabled=False)
    assert sending.verified() == []


def test_an_address_has_a_setting_of_its_own(sending):
    make_keys(sending)
    ses = sending.ses
    ses.verify_email_identity(EmailAddress="mailer-daemon@example.com")
    ses.set_identity_dkim_enabled(Identity="mailer-daemon@example.com", DkimEnabled=False)
    assert sending.verified() == []
    assert len(sending.verified("postmaster@example.com")) == 2


def test_a_subdomain_is_signed_for_by_its_parent(sending):
    make_keys(sending)
    assert {domain for domain, _ in sending.verified("x@mail.example.com")} == {"example.com"}


def test_the_closest_domain_signs(sending):
    make_keys(sending)
    sending.ses.verify_domain_identity(Domain="mail.example.com")
    make_keys(sending, "mail.example.com")
    assert {domain for domain, _ in sending.verified("x@mail.example.com")} == {"mail.example.com"}


def test_after_a_rotation_the_reserve_signs(sending, clock):
    make_keys(sending)
    assert len(sending.verified()) == 2
    sending.run(sending.app.identities.rotate_dkim("000000000000", "example.com"))
    sending.publish("example.com")
    assert len(sending.verified()) == 2


def test_a_sender_of_another_account_is_signed_for_by_that_account(sending):
    other = sending.ses_of(OTHER, "root")
    other.verify_domain_identity(Domain="elsewhere.example")
    other.verify_domain_dkim(Domain="elsewhere.example")
    other.set_identity_dkim_enabled(Identity="elsewhere.example", DkimEnabled=True)
    sending.publish("elsewhere.example", OTHER)
    arn = f"arn:aws:ses:us-east-1:{OTHER}:identity/elsewhere.example"
    other.put_identity_policy(
        Identity="elsewhere.example",
        PolicyName="p",
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {
                    "Effect": "Allow",
                    "Principal": {"AWS": "000000000000"},
                    "Action": "ses:SendBounce",
                    "Resource": arn,
                },
            }
        ),
    )
    found = sending.verified("mailer-daemon@elsewhere.example", BounceSenderArn=arn)
    assert {domain for domain, _ in found} == {"elsewhere.example"}


def test_mail_does_not_leave_unsigned_because_the_keys_cannot_be_read(sending, clock):
    """The store fails for a moment: the mail waits, and goes with its signatures."""
    make_keys(sending)
    store = sending.app.store
    read, failures = store.read, []

    async def failing(unit):
        if type(unit).__name__ == "FindSigningKeys" and len(failures) < 3:
            failures.append(unit)
            raise StoreUnavailableError("locked")
        return await read(unit)

    store.read = failing
    bounced = threading.Thread(target=lambda: found.extend(sending.verified()))
    found = []
    bounced.start()
    while bounced.is_alive():
        clock.advance(timedelta(seconds=15))
        sending.app.delivery.wake()
        bounced.join(0.1)
    assert len(failures) == 3
    assert sorted(found) == sorted(BOTH)


def test_mail_does_not_leave_unsigned_because_a_key_cannot_be_opened(sending):
    make_keys(sending)
    sending.query(
        "UPDATE dkim_keys SET sealed_key = :zeros WHERE state = 'active'", zeros=bytes(200)
    )
    bounce = sending.bounce(sending.send_bounce(bounce_sender="mailer-daemon@example.com"))
    assert bounce.state == "queued"
    assert bounce.last_reply.startswith("4.7.5 it cannot be signed: what is sealed for dkim ")
