"""The life of each resource, by the calls that Terraform's AWS provider makes, in its order.

The provider creates, reads, updates, reads, deletes, and reads again to see that it is gone.
"""

import json

import pytest

from tests.contract.errors import error

pytestmark = pytest.mark.sqlite("it tests the client: others test the same calls")

TOPIC = "arn:aws:sns:us-east-1:000000000000:feedback"


@pytest.fixture
def ses(running):
    server = running(send_bounce_rate="0")
    server.set_up(
        f"""
        [buckets]
        mails = "directory:mails"
        [topics]
        "{TOPIC}" = "http://127.0.0.1:9/"
        """
    )
    return server.ses


def verification(ses, name):
    found = ses.get_identity_verification_attributes(Identities=[name])
    return found["VerificationAttributes"].get(name)


def test_a_domain_identity(ses):
    token = ses.verify_domain_identity(Domain="example.com")["VerificationToken"]
    found = verification(ses, "example.com")
    assert found["VerificationToken"] == token
    assert found["VerificationStatus"] == "Success"  # aws_ses_domain_identity_verification waits
    ses.delete_identity(Identity="example.com")
    assert verification(ses, "example.com") is None


def test_an_email_identity(ses):
    ses.verify_email_identity(EmailAddress="ann@example.com")
    assert verification(ses, "ann@example.com") is not None
    ses.delete_identity(Identity="ann@example.com")
    assert verification(ses, "ann@example.com") is None


def test_dkim_of_a_domain(ses):
    ses.verify_domain_identity(Domain="example.com")
    tokens = ses.verify_domain_dkim(Domain="example.com")["DkimTokens"]
    found = ses.get_identity_dkim_attributes(Identities=["example.com"])["DkimAttributes"]
    assert found["example.com"]["DkimTokens"] == tokens
    assert [f"{tokens[index]}.dkim.amazonses.com" for index in range(3)]  # count = 3
    ses.delete_identity(Identity="example.com")
    assert ses.get_identity_dkim_attributes(Identities=["example.com"])["DkimAttributes"] == {}


def mail_from(ses, name):
    found = ses.get_identity_mail_from_domain_attributes(Identities=[name])
    return found["MailFromDomainAttributes"].get(name)


def test_a_mail_from_domain(ses):
    ses.verify_domain_identity(Domain="example.com")
    for domain, behavior in [("bounce", "UseDefaultValue"), ("bounce2", "RejectMessage")]:
        ses.set_identity_mail_from_domain(
            Identity="example.com",
            MailFromDomain=f"{domain}.example.com",
            BehaviorOnMXFailure=behavior,
        )
        found = mail_from(ses, "example.com")
        assert found["MailFromDomain"] == f"{domain}.example.com"
        assert found["BehaviorOnMXFailure"] == behavior
    ses.set_identity_mail_from_domain(Identity="example.com")
    assert mail_from(ses, "example.com")["MailFromDomain"] == ""
    ses.delete_identity(Identity="example.com")
    assert mail_from(ses, "example.com") is None
    code, text = error(
        ses.set_identity_mail_from_domain, Identity="example.com", MailFromDomain="b.example.com"
    )
    assert (code, text) == ("InvalidParameterValue", "Identity <example.com> does not exist.")


def notifications(ses, name):
    found = ses.get_identity_notification_attributes(Identities=[name])
    return found["NotificationAttributes"].get(name)


def test_a_notification_topic(ses):
    ses.verify_domain_identity(Domain="example.com")
    arn = "arn:aws:ses:us-east-1:000000000000:identity/example.com"
    key = {"Identity": arn, "NotificationType": "Complaint"}
    headers = ses.set_identity_headers_in_notifications_enabled
    ses.set_identity_notification_topic(**key, SnsTopic=TOPIC)
    headers(**key, Enabled=False)
    found = notifications(ses, arn)
    assert found["ComplaintTopic"] == TOPIC
    assert found["HeadersInComplaintNotificationsEnabled"] is False
    headers(**key, Enabled=True)
    assert notifications(ses, arn)["HeadersInComplaintNotificationsEnabled"] is True
    ses.set_identity_notification_topic(**key)  # without a topic
    headers(**key, Enabled=False)
    assert not notifications(ses, arn).get("ComplaintTopic")
    ses.set_identity_notification_topic(**key)  # destroy
    ses.delete_identity(Identity="example.com")
    assert notifications(ses, arn) is None


def policy(action):
    statement = {
        "Sid": "bounces",
        "Effect": "Allow",
        "Action": [action],
        "Resource": ["arn:aws:ses:us-east-1:000000000000:identity/example.com"],
        "Principal": {"AWS": ["*"]},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_a_policy(ses):
    ses.verify_domain_identity(Domain="example.com")
    key = {"Identity": "example.com", "PolicyNames": ["p"]}
    for action in ("ses:SendBounce", "SES:SendRawEmail"):
        document = policy(action)
        ses.put_identity_policy(Identity="example.com", PolicyName="p", Policy=document)
        found = ses.get_identity_policies(**key)["Policies"]
        assert json.loads(found["p"]) == json.loads(document)
    ses.delete_identity_policy(Identity="example.com", PolicyName="p")
    assert ses.get_identity_policies(**key)["Policies"] == {}


def test_a_receipt_filter(ses):
    entry = {"Name": "lan", "IpFilter": {"Cidr": "10.10.10.10", "Policy": "Block"}}
    ses.create_receipt_filter(Filter=entry)
    assert ses.list_receipt_filters()["Filters"] == [entry]
    ses.delete_receipt_filter(FilterName="lan")
    assert ses.list_receipt_filters()["Filters"] == []
    ses.delete_receipt_filter(FilterName="lan")


def test_a_rule_set_and_the_active_one(ses):
    ses.create_receipt_rule_set(RuleSetName="main")
    found = ses.describe_receipt_rule_set(RuleSetName="main")
    assert found["Metadata"]["Name"] == "main"
    ses.set_active_receipt_rule_set(RuleSetName="main")
    assert ses.describe_active_receipt_rule_set()["Metadata"]["Name"] == "main"
    assert error(ses.delete_receipt_rule_set, RuleSetName="main")[0] == "CannotDelete"
    ses.set_active_receipt_rule_set()
    assert "Metadata" not in ses.describe_active_receipt_rule_set()
    ses.delete_receipt_rule_set(RuleSetName="main")
    assert error(ses.describe_receipt_rule_set, RuleSetName="main") == (
        "RuleSetDoesNotExist",
        "Rule set does not exist: main",
    )


def actions():
    """One of each that needs no function, in the order of their positions."""
    return [
        {"AddHeaderAction": {"HeaderName": "Added-By", "HeaderValue": "Terraform"}},
        {"S3Action": {"BucketName": "mails", "ObjectKeyPrefix": "in"}},
        {"SNSAction": {"TopicArn": TOPIC, "Encoding": "UTF-8"}},
        {
            "BounceAction": {
                "Message": "Mailbox does not exist",
                "Sender": "bounce@example.com",
                "SmtpReplyCode": "550",
                "StatusCode": "5.1.1",
            }
        },
        {"StopAction": {"Scope": "RuleSet"}},
    ]


def test_rules(ses):
    ses.verify_domain_identity(Domain="example.com")
    ses.create_receipt_rule_set(RuleSetName="main")
    rule = {"Name": "second", "Enabled": False, "ScanEnabled": False, "TlsPolicy": "Optional"}
    ses.create_receipt_rule(RuleSetName="main", Rule={**rule, "Actions": []})
    key = {"RuleSetName": "main", "RuleName": "second"}
    assert ses.describe_receipt_rule(**key)["Rule"] == {**rule, "Actions": []}
    rule |= {
        "Enabled": True,
        "ScanEnabled": True,
        "TlsPolicy": "Require",
        "Recipients": ["test@example.com", ".example.com"],
        "Actions": actions(),
    }
    ses.update_receipt_rule(RuleSetName="main", Rule=rule)
    ses.set_receipt_rule_position(**key)
    assert ses.describe_receipt_rule(**key)["Rule"] == rule
    ses.create_receipt_rule(RuleSetName="main", Rule={"Name": "third"}, After="second")
    found = ses.describe_receipt_rule_set(RuleSetName="main")["Rules"]
    assert [each["Name"] for each in found] == ["second", "third"]
    ses.delete_receipt_rule(**key)
    assert error(ses.describe_receipt_rule, **key) == (
        "RuleDoesNotExist",
        "Rule does not exist: second",
    )
    ses.delete_receipt_rule_set(RuleSetName="main")
