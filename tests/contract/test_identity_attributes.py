"""DKIM, MAIL FROM and notification attributes, by boto3."""

import pytest

from tests.contract.errors import error

TOPIC = "arn:aws:sns:us-east-1:000000000000:feedback"


def test_the_older_operations_on_addresses(server):
    ses = server.ses
    ses.verify_email_address(EmailAddress="ann@other.example")
    ses.verify_email_identity(EmailAddress="bob@other.example")
    found = ses.list_verified_email_addresses()["VerifiedEmailAddresses"]
    assert found == ["ann@other.example", "bob@other.example"]
    ses.delete_verified_email_address(EmailAddress="ann@other.example")
    ses.delete_verified_email_address(EmailAddress="ann@other.example")
    assert ses.list_verified_email_addresses()["VerifiedEmailAddresses"] == ["bob@other.example"]


# --- DKIM -----------------------------------------------------------------------------------------


def test_dkim_tokens_are_made_once(server):
    ses = server.ses
    tokens = ses.verify_domain_dkim(Domain="Other.Example")["DkimTokens"]
    assert len(tokens) == len(set(tokens)) == 3
    assert ses.verify_domain_dkim(Domain="other.example")["DkimTokens"] == tokens
    assert "other.example" in ses.list_identities()["Identities"]
    found = ses.get_identity_dkim_attributes(
        Identities=["other.example", "example.com", "nobody.example"]
    )["DkimAttributes"]
    assert found == {
        "other.example": {
            "DkimEnabled": False,
            "DkimVerificationStatus": "Success",
            "DkimTokens": tokens,
        },
        "example.com": {
            "DkimEnabled": False,
            "DkimVerificationStatus": "NotStarted",
            "DkimTokens": [],
        },
    }


def test_ed25519_keys_by_setting(running):
    server = running(dkim_ed25519="true")
    ses = server.ses
    tokens = ses.verify_domain_dkim(Domain="other.example")["DkimTokens"]
    keys = server.run(server.app.identities.dkim_keys("000000000000", ["other.example"]))
    assert sorted(key.algorithm for key in keys) == ["ed25519", "ed25519", "rsa", "rsa"]
    # SES's clients expect three: the active ones, and the standby key that all can verify.
    active = [key.selector for key in keys if key.state == "active"]
    (standby,) = [key.selector for key in keys if (key.state, key.algorithm) == ("standby", "rsa")]
    assert sorted(tokens[:2]) == sorted(active)
    assert tokens[2:] == [standby]


def test_enabling_dkim(server):
    ses = server.ses
    assert error(ses.set_identity_dkim_enabled, Identity="example.com", DkimEnabled=True) == (
        "InvalidParameterValue",
        "Domain example.com is not verified for DKIM signing.",
    )
    tokens = ses.verify_domain_dkim(Domain="example.com")["DkimTokens"]
    ses.set_identity_dkim_enabled(Identity="example.com", DkimEnabled=True)
    ses.verify_email_identity(EmailAddress="ann@example.com")
    found = ses.get_identity_dkim_attributes(Identities=["example.com", "ann@example.com"])
    both = {"DkimEnabled": True, "DkimVerificationStatus": "Success", "DkimTokens": tokens}
    assert found["DkimAttributes"] == {"example.com": both, "ann@example.com": both}
    ses.set_identity_dkim_enabled(Identity="ann@example.com", DkimEnabled=False)
    found = ses.get_identity_dkim_attributes(Identities=["example.com", "ann@example.com"])
    enabled = {name: each["DkimEnabled"] for name, each in found["DkimAttributes"].items()}
    assert enabled == {"example.com": True, "ann@example.com": False}


# --- MAIL FROM ------------------------------------------------------------------------------------


def mail_from(ses, name="example.com"):
    found = ses.get_identity_mail_from_domain_attributes(Identities=[name])
    return found["MailFromDomainAttributes"].get(name)


def test_the_mail_from_domain(server):
    ses = server.ses
    ses.set_identity_mail_from_domain(
        Identity="example.com",
        MailFromDomain="Bounces.example.com",
        BehaviorOnMXFailure="RejectMessage",
    )
    assert mail_from(ses) == {
        "MailFromDomain": "bounces.example.com",
        "MailFromDomainStatus": "Success",
        "BehaviorOnMXFailure": "RejectMessage",
    }
    ses.set_identity_mail_from_domain(
        Identity="arn:aws:ses:us-east-1:000000000000:identity/example.com",
        MailFromDomain="mail.example.com",
    )
    assert mail_from(ses)["BehaviorOnMXFailure"] == "RejectMessage"
    ses.set_identity_mail_from_domain(Identity="example.com")
    assert mail_from(ses) == {
        "MailFromDomain": "",
        "MailFromDomainStatus": "Pending",
        "BehaviorOnMXFailure": "UseDefaultValue",
    }
    assert mail_from(ses, "nobody.example") is None


@pytest.mark.parametrize(
    ("identity", "domain", "expected"),
    [
        ("nobody.example", "x.nobody.example", "Identity <nobody.example> does not exist."),
        (
            "example.com",
            "mail.other.example",
            "Provided MAIL-FROM domain <mail.other.example> is not subdomain of the domain of the "
            "identity <example.com>.",
        ),
        (
            "example.com",
            "example.com",
            "Provided MAIL-FROM domain <example.com> is not subdomain of the domain of the "
            "identity <example.com>.",
        ),
        (
            "example.com",
            "xexample.com",
            "Provided MAIL-FROM domain <xexample.com> is not subdomain of the domain of the "
            "identity <example.com>.",
        ),
        (
            "example.com",
            "not a domain.example.com",
            "Invalid MAIL FROM domain: 'not a domain.example.com' is not a domain name",
        ),
    ],
)
def test_mail_from_domains_that_are_refused(server, identity, domain, expected):
    call = server.ses.set_identity_mail_from_domain
    found = error(call, Identity=identity, MailFromDomain=domain)
    assert found == ("InvalidParameterValue", expected)


def test_a_behaviour_that_there_is_not(client):
    code, text = error(
        client.set_identity_mail_from_domain,
        Identity="example.com",
        MailFromDomain="m.example.com",
        BehaviorOnMXFailure="Shrug",
    )
    assert code == "ValidationError"
    assert "'behaviorOnMXFailure' failed to satisfy constraint" in text


# --- notifications --------------------------------------------------------------------------------


def notifications(ses):
    found = ses.get_identity_notification_attributes(Identities=["example.com", "no.example"])
    assert found["NotificationAttributes"].keys() == {"example.com"}
    return found["NotificationAttributes"]["example.com"]


def test_notification_attributes(server):
    ses = server.ses
    assert notifications(ses) == {
        "BounceTopic": "",
        "ComplaintTopic": "",
        "DeliveryTopic": "",
        "ForwardingEnabled": True,
        "HeadersInBounceNotificationsEnabled": False,
        "HeadersInComplaintNotificationsEnabled": False,
        "HeadersInDeliveryNotificationsEnabled": False,
    }
    for kind in ("Bounce", "Complaint"):
        ses.set_identity_notification_topic(
            Identity="example.com", NotificationType=kind, SnsTopic=TOPIC
        )
    ses.set_identity_feedback_forwarding_enabled(Identity="example.com", ForwardingEnabled=False)
    ses.set_identity_headers_in_notifications_enabled(
        Identity="example.com", NotificationType="Bounce", Enabled=True
    )
    found = notifications(ses)
    assert (found["BounceTopic"], found["ComplaintTopic"], found["DeliveryTopic"]) == (
        TOPIC,
        TOPIC,
        "",
    )
    assert found["ForwardingEnabled"] is False
    assert found["HeadersInBounceNotificationsEnabled"] is True
    # Without a topic nobody would hear of bounces: mail it is again.
    ses.set_identity_notification_topic(Identity="example.com", NotificationType="Bounce")
    found = notifications(ses)
    assert (found["BounceTopic"], found["ForwardingEnabled"]) == ("", True)
    assert found["HeadersInBounceNotificationsEnabled"] is False


def test_notification_attributes_that_are_refused(server):
    ses = server.ses
    code = "InvalidParameterValue"
    assert error(
        ses.set_identity_notification_topic,
        Identity="no.example",
        NotificationType="Bounce",
        SnsTopic=TOPIC,
    ) == (
        code,
        "Identity no.example is invalid. Must be a verified email address or domain.",
    )
    assert error(
        ses.set_identity_notification_topic,
        Identity="example.com",
        NotificationType="Bounce",
        SnsTopic="feedback",
    ) == (code, "SNS topic feedback is invalid.")
    assert error(
        ses.set_identity_feedback_forwarding_enabled,
        Identity="example.com",
        ForwardingEnabled=False,
    ) == (
        code,
        "Identity <example.com> must have SNS topics for both bounces and complaints before "
        "feedback forwarding can be disabled.",
    )
    assert error(
        ses.set_identity_headers_in_notifications_enabled,
        Identity="example.com",
        NotificationType="Delivery",
        Enabled=True,
    ) == (code, "Identity <example.com> has no SNS topic for Delivery notifications.")


def test_what_belongs_to_an_identity_goes_with_it(server):
    ses = server.ses
    ses.verify_domain_dkim(Domain="example.com")
    ses.set_identity_mail_from_domain(Identity="example.com", MailFromDomain="m.example.com")
    ses.set_identity_notification_topic(
        Identity="example.com", NotificationType="Bounce", SnsTopic=TOPIC
    )
    ses.delete_identity(Identity="example.com")
    ses.verify_domain_identity(Domain="example.com")
    assert mail_from(ses)["MailFromDomain"] == ""
    assert notifications(ses)["BounceTopic"] == ""
    found = ses.get_identity_dkim_attributes(Identities=["example.com"])
    assert found["DkimAttributes"]["example.com"]["DkimTokens"] == []


@pytest.mark.parametrize(
    "operation",
    [
        "get_identity_dkim_attributes",
        "get_identity_mail_from_domain_attributes",
        "get_identity_notification_attributes",
    ],
)
def test_at_most_a_hundred_at_a_time(server, operation):
    found = error(getattr(server.ses, operation), Identities=["x.example"] * 101)
    assert found == ("InvalidParameterValue", "Identities: at most 100 at a time.")
