"""Two accounts: what is another's behaves exactly as what does not exist."""

import pytest

from tests.contract.errors import error

A, B = "000000000000", "111111111111"
RULE = {"Name": "r", "Enabled": True, "Actions": [{"StopAction": {"Scope": "RuleSet"}}]}


@pytest.fixture
def accounts(server):
    """(A's client, B's client): A has one of everything, B has nothing."""
    a, b = server.ses(), server.ses_of(B, "bea")
    a.create_receipt_rule_set(RuleSetName="mine")
    a.create_receipt_rule(RuleSetName="mine", Rule=RULE)
    a.set_active_receipt_rule_set(RuleSetName="mine")
    a.create_receipt_filter(
        Filter={"Name": "f", "IpFilter": {"Policy": "Block", "Cidr": "192.0.2.1"}}
    )
    a.verify_domain_dkim(Domain="example.com")
    return a, b


CALLS = [
    ("describe_receipt_rule_set", {"RuleSetName": "{}"}),
    ("describe_receipt_rule", {"RuleSetName": "{}", "RuleName": "r"}),
    ("delete_receipt_rule", {"RuleSetName": "{}", "RuleName": "r"}),
    ("create_receipt_rule", {"RuleSetName": "{}", "Rule": RULE}),
    ("update_receipt_rule", {"RuleSetName": "{}", "Rule": RULE}),
    ("set_receipt_rule_position", {"RuleSetName": "{}", "RuleName": "r"}),
    ("reorder_receipt_rule_set", {"RuleSetName": "{}", "RuleNames": ["r"]}),
    ("set_active_receipt_rule_set", {"RuleSetName": "{}"}),
    ("clone_receipt_rule_set", {"RuleSetName": "new", "OriginalRuleSetName": "{}"}),
    ("set_identity_mail_from_domain", {"Identity": "{}", "MailFromDomain": "m.{}"}),
    ("set_identity_dkim_enabled", {"Identity": "{}", "DkimEnabled": True}),
    ("set_identity_feedback_forwarding_enabled", {"Identity": "{}", "ForwardingEnabled": True}),
    ("set_identity_notification_topic", {"Identity": "{}", "NotificationType": "Bounce"}),
    ("get_custom_verification_email_template", {"TemplateName": "{}"}),
]


@pytest.mark.parametrize(("operation", "arguments"), CALLS)
def test_the_same_words_for_anothers_and_for_nobodys(accounts, operation, arguments):
    _, b = accounts
    is_identity = "Identity" in arguments
    anothers, nobodys = ("example.com", "nobody.example") if is_identity else ("mine", "nothing")

    def answer(name):
        given = {
            key: value.format(name) if isinstance(value, str) else value
            for key, value in arguments.items()
        }
        code, text = error(getattr(b, operation), **given)
        return code, text.replace(name, "X")

    assert answer(anothers) == answer(nobodys)


LISTS = [
    ("list_identities", {}, "Identities"),
    ("list_receipt_rule_sets", {}, "RuleSets"),
    ("list_receipt_filters", {}, "Filters"),
    ("list_verified_email_addresses", {}, "VerifiedEmailAddresses"),
    (
        "get_identity_verification_attributes",
        {"Identities": ["example.com"]},
        "VerificationAttributes",
    ),
    ("get_identity_dkim_attributes", {"Identities": ["example.com"]}, "DkimAttributes"),
    ("list_identity_policies", {"Identity": "example.com"}, "PolicyNames"),
]


@pytest.mark.parametrize(("operation", "arguments", "member"), LISTS)
def test_lists_hold_ones_own(accounts, operation, arguments, member):
    _, b = accounts
    assert not getattr(b, operation)(**arguments)[member]


def test_deleting_anothers_deletes_nothing(accounts):
    a, b = accounts
    b.delete_identity(Identity="example.com")
    b.delete_receipt_rule_set(RuleSetName="mine")
    b.delete_receipt_filter(FilterName="f")
    assert a.list_identities()["Identities"] == ["example.com"]
    assert len(a.list_receipt_filters()["Filters"]) == 1
    assert a.describe_active_receipt_rule_set()["Metadata"]["Name"] == "mine"


def test_a_shared_domain_is_received_for_by_each(accounts, server):
    a, b = accounts
    b.verify_domain_identity(Domain="example.com")
    message = server.send_mail()
    for client in (a, b):
        assert client.send_bounce(
            OriginalMessageId=message,
            BounceSender="x@example.com",
            BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
        )["MessageId"]
    b.delete_identity(Identity="example.com")
    message = server.send_mail()
    assert (
        error(
            b.send_bounce,
            OriginalMessageId=message,
            BounceSender="x@example.com",
            BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "Undefined"}],
        )[0]
        == "MessageRejected"
    )
