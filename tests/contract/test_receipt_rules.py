"""Receipt rule sets and rules by boto3: each operation, and each text of the live service."""

from datetime import timedelta

import pytest
from botocore.exceptions import ClientError

from tests.contract.errors import error, violations

TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:check"
CONNECT = "arn:aws:connect:us-east-1:000000000000:instance/12345678-1234-1234-1234-123456789abc"
NAME_PATTERN = (
    "failed to satisfy constraint: "
    "Member must satisfy regular expression pattern: ^[a-zA-Z0-9_.-]+$"
)
NAME_LENGTH = "failed to satisfy constraint: Member must have length greater than or equal to 1"
NOT_NULL = "failed to satisfy constraint: Member must not be null"


@pytest.fixture
def one(client):
    """A client, and a rule set `one`."""
    client.create_receipt_rule_set(RuleSetName="one")
    return client


def names(client, rule_set="one"):
    return [r["Name"] for r in client.describe_receipt_rule_set(RuleSetName=rule_set)["Rules"]]


def add(client, name, **options):
    after = {"After": options.pop("after")} if "after" in options else {}
    rule = {"Name": name, **options}
    client.create_receipt_rule(RuleSetName="one", Rule=rule, **after)


# --- rule sets -------------------------------------------------------------------------------


def test_a_rule_set_from_creation_to_deletion(client, clock):
    client.create_receipt_rule_set(RuleSetName="one")
    clock.advance(timedelta(seconds=1))
    client.create_receipt_rule_set(RuleSetName="another.one_2-x")
    listed = client.list_receipt_rule_sets()["RuleSets"]
    assert [entry["Name"] for entry in listed] == ["one", "another.one_2-x"]
    assert listed[0]["CreatedTimestamp"] < listed[1]["CreatedTimestamp"]
    described = client.describe_receipt_rule_set(RuleSetName="one")
    assert described["Metadata"] == listed[0]
    assert described["Rules"] == []
    client.delete_receipt_rule_set(RuleSetName="one")
    client.delete_receipt_rule_set(RuleSetName="one")  # an absent one succeeds
    assert error(client.describe_receipt_rule_set, RuleSetName="one") == (
        "RuleSetDoesNotExist",
        "Rule set does not exist: one",
    )


@pytest.mark.parametrize("given", [{}, {"RuleSetName": ""}, {"RuleSetName": "  "}])
@pytest.mark.parametrize(
    "operation",
    ["create_receipt_rule_set", "delete_receipt_rule_set", "describe_receipt_rule_set"],
)
def test_a_rule_set_name_is_required(client, operation, given):
    expected = ("InvalidParameterValue", "RuleSetName is required.")
    assert error(getattr(client, operation), **given) == expected


def test_a_rule_sets_name_has_its_characters(client):
    expected = violations(f"Value at 'ruleSetName' {NAME_PATTERN}")
    assert error(client.create_receipt_rule_set, RuleSetName="a b") == expected
    assert error(client.create_receipt_rule_set, RuleSetName="ä") == expected


@pytest.mark.parametrize("name", ["x" * 65, "-x", "x-", ".x", "x_"])
def test_a_rule_sets_name_is_a_name(client, name):
    expected = ("InvalidParameterValue", f"Not a valid ruleSetName: {name}")
    assert error(client.create_receipt_rule_set, RuleSetName=name) == expected


def test_a_name_of_64_characters_is_one(client):
    client.create_receipt_rule_set(RuleSetName="x" * 64)


def test_a_rule_set_exists_once(one):
    expected = ("AlreadyExists", "Rule set already exists: one")
    assert error(one.create_receipt_rule_set, RuleSetName="one") == expected


def test_there_are_40_rule_sets(client):
    for number in range(40):
        client.create_receipt_rule_set(RuleSetName=f"set{number}")
    expected = ("LimitExceeded", "Too many rule sets")
    assert error(client.create_receipt_rule_set, RuleSetName="another") == expected


def test_the_extra_members_of_errors_are_there(one):
    with pytest.raises(ClientError) as raised:
        one.create_receipt_rule_set(RuleSetName="one")
    assert raised.value.response["Error"]["Name"] == "one"


def test_the_active_rule_set(one):
    assert "Metadata" not in one.describe_active_receipt_rule_set()
    add(one, "first")
    one.set_active_receipt_rule_set(RuleSetName="one")
    active = one.describe_active_receipt_rule_set()
    assert active["Metadata"]["Name"] == "one"
    assert [rule["Name"] for rule in active["Rules"]] == ["first"]
    expected = ("CannotDelete", "Cannot delete active rule set: one")
    assert error(one.delete_receipt_rule_set, RuleSetName="one") == expected
    one.set_active_receipt_rule_set()
    assert "Metadata" not in one.describe_active_receipt_rule_set()
    one.delete_receipt_rule_set(RuleSetName="one")  # with its rules
    one.create_receipt_rule_set(RuleSetName="one")
    assert names(one) == []


def test_what_is_not_there_cannot_be_active(client):
    expected = ("RuleSetDoesNotExist", "Rule set does not exist: one")
    assert error(client.set_active_receipt_rule_set, RuleSetName="one") == expected


def test_cloning(one, clock):
    add(one, "rule", Recipients=["example.com"], Enabled=True)
    one.set_active_receipt_rule_set(RuleSetName="one")
    clock.advance(timedelta(hours=1))
    one.clone_receipt_rule_set(RuleSetName="two", OriginalRuleSetName="one")
    original = one.describe_receipt_rule_set(RuleSetName="one")
    clone = one.describe_receipt_rule_set(RuleSetName="two")
    assert clone["Rules"] == original["Rules"]
    made = clone["Metadata"]["CreatedTimestamp"] - original["Metadata"]["CreatedTimestamp"]
    assert made == timedelta(hours=1)
    assert one.describe_active_receipt_rule_set()["Metadata"]["Name"] == "one"
    expected = ("AlreadyExists", "Rule set already exists: two")
    clone = {"RuleSetName": "two", "OriginalRuleSetName": "nothing"}
    assert error(one.clone_receipt_rule_set, **clone) == expected
    expected = ("RuleSetDoesNotExist", "Rule set does not exist: nothing")
    clone = {"RuleSetName": "three", "OriginalRuleSetName": "nothing"}
    assert error(one.clone_receipt_rule_set, **clone) == expected
    expected = violations(
        f"Value at 'originalRuleSetName' {NAME_PATTERN}", f"Value at 'ruleSetName' {NAME_PATTERN}"
    )
    both = {"RuleSetName": "a b", "OriginalRuleSetName": "c d"}
    assert error(one.clone_receipt_rule_set, **both) == expected


# --- rules -----------------------------------------------------------------------------------


def test_a_rule_comes_first_or_behind_another(one):
    add(one, "a")
    add(one, "b")
    assert names(one) == ["b", "a"]
    add(one, "c", after="b")
    assert names(one) == ["b", "c", "a"]
    expected = ("RuleDoesNotExist", "Rule does not exist: nothing")
    rule = {"RuleSetName": "one", "Rule": {"Name": "d"}, "After": "nothing"}
    assert error(one.create_receipt_rule, **rule) == expected


def test_a_rules_defaults(one, server):
    add(one, "a", Actions=[{"StopAction": {"Scope": "RuleSet"}}])
    assert one.describe_receipt_rule(RuleSetName="one", RuleName="a")["Rule"] == {
        "Name": "a",
        "Enabled": False,
        "TlsPolicy": "Optional",
        "Actions": [{"StopAction": {"Scope": "RuleSet"}}],
        "ScanEnabled": False,
    }


def test_every_action_comes_back_as_it_was_given(running):
    server = running(check_targets="false")
    client = server.ses
    client.verify_domain_identity(Domain="example.com")
    client.create_receipt_rule_set(RuleSetName="one")
    actions = [
        {"AddHeaderAction": {"HeaderName": "X-Note", "HeaderValue": "<&> seen"}},
        {
            "S3Action": {
                "TopicArn": TOPIC,
                "BucketName": "mail",
                "ObjectKeyPrefix": "in/",
                "KmsKeyArn": "arn:aws:kms:us-east-1:000000000000:alias/aws/ses",
                "IamRoleArn": "arn:aws:iam::000000000000:role/mail",
            }
        },
        {"SNSAction": {"TopicArn": TOPIC, "Encoding": "Base64"}},
        {"LambdaAction": {"FunctionArn": FUNCTION, "InvocationType": "RequestResponse"}},
        {
            "BounceAction": {
                "TopicArn": TOPIC,
                "SmtpReplyCode": "550",
                "StatusCode": "5.1.1",
                "Message": "Mailbox does not exist",
                "Sender": "mailer-daemon@example.com",
            }
        },
        {"WorkmailAction": {"OrganizationArn": "arn:aws:workmail:us-east-1:0:organization/m-1"}},
        {
            "ConnectAction": {
                "InstanceARN": CONNECT,
                "IAMRoleARN": "arn:aws:iam::000000000000:role/connect",
            }
        },
        {"StopAction": {"Scope": "RuleSet", "TopicArn": TOPIC}},
    ]
    add(client, "all", Actions=actions)
    found = client.describe_receipt_rule(RuleSetName="one", RuleName="all")["Rule"]
    assert found["Actions"] == actions


def test_the_encoding_of_an_sns_action_defaults(running):
    client = running(check_targets="false").ses
    client.create_receipt_rule_set(RuleSetName="one")
    add(client, "a", Actions=[{"SNSAction": {"TopicArn": TOPIC}}])
    (action,) = client.describe_receipt_rule(RuleSetName="one", RuleName="a")["Rule"]["Actions"]
    assert action == {"SNSAction": {"TopicArn": TOPIC, "Encoding": "UTF-8"}}


def test_an_update_replaces_the_whole_rule_in_its_place(one):
    add(one, "a", Enabled=True, Recipients=["example.com"], TlsPolicy="Require")
    add(one, "b")
    one.update_receipt_rule(RuleSetName="one", Rule={"Name": "a", "ScanEnabled": True})
    found = one.describe_receipt_rule(RuleSetName="one", RuleName="a")["Rule"]
    assert found["Enabled"] is False
    assert found["TlsPolicy"] == "Optional"
    assert "Recipients" not in found
    assert found["ScanEnabled"] is True
    assert names(one) == ["b", "a"]
    expected = ("RuleDoesNotExist", "Rule does not exist: c")
    rule = {"RuleSetName": "one", "Rule": {"Name": "c"}}
    assert error(one.update_receipt_rule, **rule) == expected


def test_deleting_rules(one):
    add(one, "a")
    one.delete_receipt_rule(RuleSetName="one", RuleName="a")
    one.delete_receipt_rule(RuleSetName="one", RuleName="a")
    assert names(one) == []
    expected = ("RuleSetDoesNotExist", "Rule set does not exist: two")
    assert error(one.delete_receipt_rule, RuleSetName="two", RuleName="a") == expected


def test_moving_rules(one):
    for name in ("c", "b", "a"):
        add(one, name)
    one.set_receipt_rule_position(RuleSetName="one", RuleName="c")
    assert names(one) == ["c", "a", "b"]
    one.set_receipt_rule_position(RuleSetName="one", RuleName="c", After="a")
    assert names(one) == ["a", "c", "b"]
    one.set_receipt_rule_position(RuleSetName="one", RuleName="c", After="c")
    assert names(one) == ["a", "c", "b"]
    for given in ({"RuleName": "x"}, {"RuleName": "a", "After": "x"}):
        expected = ("RuleDoesNotExist", "Rule does not exist: x")
        assert error(one.set_receipt_rule_position, RuleSetName="one", **given) == expected


def test_reordering(one):
    for name in ("c", "b", "a"):
        add(one, name)
    one.reorder_receipt_rule_set(RuleSetName="one", RuleNames=["c", "a", "b"])
    assert names(one) == ["c", "a", "b"]

    def refused(*order):
        return error(one.reorder_receipt_rule_set, RuleSetName="one", RuleNames=list(order))

    twice = "Multiple positions found for rule: x"
    assert refused("x", "x", "a") == ("InvalidParameterValue", twice)
    missing = "Positions for rules not found: c, b"
    assert refused("a", "x") == ("InvalidParameterValue", missing)
    assert refused("a", "b", "c", "x") == ("RuleDoesNotExist", "Rule does not exist: x")
    nested = (
        "Value at 'ruleNames' failed to satisfy constraint: Member must satisfy constraint: "
        "[Member must have length less than or equal to 100, "
        "Member must have length greater than or equal to 1, "
        "Member must satisfy regular expression pattern: ^[a-zA-Z0-9_.-]+$]"
    )
    for malformed in ("", "a b", "x" * 101):
        assert refused("a", malformed) == violations(nested)
    assert names(one) == ["c", "a", "b"]
    expected = ("RuleSetDoesNotExist", "Rule set does not exist: two")
    order = {"RuleSetName": "two", "RuleNames": ["a", "a"]}
    assert error(one.reorder_receipt_rule_set, **order) == expected


def test_a_rules_name(one):
    def refused(rule):
        return error(one.create_receipt_rule, RuleSetName="one", Rule=rule)

    empty = violations(
        f"Value at 'rule.name' {NAME_LENGTH}", f"Value at 'rule.name' {NAME_PATTERN}"
    )
    assert refused({"Name": ""}) == empty
    assert refused({"Enabled": True}) == empty
    assert refused({"Name": "a b"}) == violations(f"Value at 'rule.name' {NAME_PATTERN}")
    for name in ("x" * 65, "-x", "x."):
        assert refused({"Name": name}) == (
            "InvalidParameterValue",
            f"Not a valid ruleName: {name}",
        )
    add(one, "x")
    assert refused({"Name": "x"}) == ("AlreadyExists", "Rule already exists: x")


@pytest.mark.parametrize(
    "operation", ["describe_receipt_rule", "delete_receipt_rule", "set_receipt_rule_position"]
)
def test_the_name_of_a_rule_as_a_parameter(one, operation):
    def refused(**given):
        return error(getattr(one, operation), RuleSetName="one", **given)

    assert refused() == ("InvalidParameterValue", "RuleName is required.")
    assert refused(RuleName="") == violations(
        f"Value at 'ruleName' {NAME_LENGTH}", f"Value at 'ruleName' {NAME_PATTERN}"
    )
    assert refused(RuleName="a b") == violations(f"Value at 'ruleName' {NAME_PATTERN}")
    assert refused(RuleName="-a") == ("InvalidParameterValue", "Not a valid ruleName: -a")


def test_after_has_the_characters_of_a_name(one):
    expected = violations(f"Value at 'after' {NAME_PATTERN}")
    rule = {"RuleSetName": "one", "Rule": {"Name": "a"}, "After": "b c"}
    assert error(one.create_receipt_rule, **rule) == expected


def test_a_rule_of_nothing(one):
    expected = violations(f"Value at 'rule' {NOT_NULL}")
    assert error(one.create_receipt_rule, RuleSetName="one") == expected


def test_violations_are_collected_with_their_paths(one):
    rule = {
        "Name": "a b",
        "TlsPolicy": "Sometimes",
        "Actions": [
            {"BounceAction": {"TopicArn": TOPIC}},
            {"SNSAction": {"Encoding": "rot13"}},
            {"LambdaAction": {"InvocationType": "Maybe"}},
            {"StopAction": {"Scope": "All"}},
            {"S3Action": {"ObjectKeyPrefix": "x"}},
            {"AddHeaderAction": {"HeaderName": "X"}},
        ],
    }
    action = "Value at 'rule.actions"
    enum = "failed to satisfy constraint: Member must satisfy enum value set"
    assert error(one.create_receipt_rule, RuleSetName="one", Rule=rule) == violations(
        f"Value at 'rule.name' {NAME_PATTERN}",
        f"Value at 'rule.tlsPolicy' {enum}: [Optional, Require]",
        f"{action}.1.member.bounceAction.smtpReplyCode' {NOT_NULL}",
        f"{action}.1.member.bounceAction.sender' {NOT_NULL}",
        f"{action}.1.member.bounceAction.message' {NOT_NULL}",
        f"{action}.2.member.sNSAction.encoding' {enum}: [Base64, UTF-8]",
        f"{action}.2.member.sNSAction.topicArn' {NOT_NULL}",
        f"{action}.3.member.lambdaAction.functionArn' {NOT_NULL}",
        f"{action}.3.member.lambdaAction.invocationType' {enum}: [RequestResponse, Event]",
        f"{action}.4.member.stopAction.scope' {enum}: [RuleSet]",
        f"{action}.5.member.s3Action.bucketName' {NOT_NULL}",
        f"{action}.6.member.addHeaderAction.headerValue' {NOT_NULL}",
    )


def test_there_are_200_rules_and_10_actions(one, server):
    for number in range(200):
        add(one, f"rule{number}")
    rule = {"RuleSetName": "one", "Rule": {"Name": "another"}}
    assert error(one.create_receipt_rule, **rule) == ("LimitExceeded", "Too many rules")
    header = {"AddHeaderAction": {"HeaderName": "X-A", "HeaderValue": "b"}}
    one.update_receipt_rule(RuleSetName="one", Rule={"Name": "rule0", "Actions": [header] * 10})
    rule = {"RuleSetName": "one", "Rule": {"Name": "rule0", "Actions": [header] * 11}}
    assert error(one.update_receipt_rule, **rule) == ("LimitExceeded", "Too many actions")


def test_more_than_100_recipients_are_accepted(one):
    add(one, "many", Recipients=[f"user{number}@example.com" for number in range(150)])
    found = one.describe_receipt_rule(RuleSetName="one", RuleName="many")["Rule"]
    assert len(found["Recipients"]) == 150


STOP = {"StopAction": {"Scope": "RuleSet"}}
BOUNCE = {"SmtpReplyCode": "550", "Message": "No", "Sender": "mailer-daemon@example.com"}
INVALID = "InvalidParameterValue"


@pytest.mark.parametrize(
    ("actions", "code", "text"),
    [
        (
            [STOP, {"AddHeaderAction": {"HeaderName": "X", "HeaderValue": "y"}}],
            INVALID,
            "Stop action, if any, must be placed at the end of the actions list",
        ),
        (
            [{"AddHeaderAction": {"HeaderName": "X Y", "HeaderValue": "y"}}],
            INVALID,
            "Invalid header name: X Y",
        ),
        (
            [{"AddHeaderAction": {"HeaderName": "X:Y", "HeaderValue": "y"}}],
            INVALID,
            "Invalid header name: X:Y",
        ),
        (
            [{"AddHeaderAction": {"HeaderName": "X", "HeaderValue": "y\r\nZ: z"}}],
            INVALID,
            "Invalid header value: y\r\nZ: z",
        ),
        ([{"SNSAction": {"TopicArn": "mail"}}], "InvalidSnsTopic", "Invalid SNS topic: mail"),
        ([{"SNSAction": {"TopicArn": ""}}], "InvalidSnsTopic", "Invalid SNS topic: "),
        (
            [{"SNSAction": {"TopicArn": TOPIC}}],
            "InvalidSnsTopic",
            f"Could not publish to SNS topic: {TOPIC}",
        ),
        ([{"S3Action": {"BucketName": ""}}], INVALID, "Bucket name must not be empty"),
        (
            [{"S3Action": {"BucketName": "nowhere"}}],
            "InvalidS3Configuration",
            "No such bucket: nowhere",
        ),
        (
            [{"LambdaAction": {"FunctionArn": ""}}],
            INVALID,
            "Lambda function ARN must not be empty",
        ),
        (
            [{"LambdaAction": {"FunctionArn": "check"}}],
            "InvalidLambdaFunction",
            "Invalid Lambda function: check",
        ),
        (
            [{"LambdaAction": {"FunctionArn": FUNCTION}}],
            "InvalidLambdaFunction",
            f"Could not invoke Lambda function: {FUNCTION}",
        ),
        (
            [{"BounceAction": {**BOUNCE, "SmtpReplyCode": ""}}],
            INVALID,
            "Invalid SMTP reply code: ",
        ),
        (
            [{"BounceAction": {**BOUNCE, "Message": ""}}],
            INVALID,
            "Invalid SMTP response message: ",
        ),
        (
            [{"BounceAction": {**BOUNCE, "Sender": "x@elsewhere.example"}}],
            INVALID,
            "Identity is not verified: x@elsewhere.example",
        ),
    ],
)
def test_what_an_action_may_not_be(one, actions, code, text):
    for call in (one.create_receipt_rule, one.update_receipt_rule):
        if call == one.update_receipt_rule:
            add(one, "a")
        rule = {"Name": "a", "Actions": actions}
        assert error(call, RuleSetName="one", Rule=rule) == (code, text)


def test_an_action_is_of_one_kind(one):
    header = {"AddHeaderAction": {"HeaderName": "X", "HeaderValue": "y"}}
    rule = {"RuleSetName": "one", "Rule": {"Name": "a", "Actions": [{**header, **STOP}]}}
    expected = (INVALID, "Exactly one action type must be specified for each ReceiptAction")
    assert error(one.create_receipt_rule, **rule) == expected


def test_the_next_page_of_rule_sets(client, server):
    client.create_receipt_rule_set(RuleSetName="a")
    assert "NextToken" not in client.list_receipt_rule_sets()
    expected = (INVALID, "Invalid NextToken <nonsense>.")
    assert error(client.list_receipt_rule_sets, NextToken="nonsense") == expected


def test_other_accounts_rule_sets_do_not_exist(one, server):
    stranger = server.ses_of("111111111111", "eve")
    assert stranger.list_receipt_rule_sets()["RuleSets"] == []
    expected = ("RuleSetDoesNotExist", "Rule set does not exist: one")
    assert error(stranger.describe_receipt_rule_set, RuleSetName="one") == expected
    stranger.delete_receipt_rule_set(RuleSetName="one")
    assert names(one) == []
