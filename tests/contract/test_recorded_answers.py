"""Answers recorded on the live service, and requests of clients that work with it."""

import re
import urllib.error
import urllib.request
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.contract.errors import error, violations
from tests.partners.raw_http import RawHttp

INVALID = "InvalidParameterValue"
NAMESPACE = "{http://ses.amazonaws.com/doc/2010-12-01/}"
ARN = "arn:aws:ses:us-east-1:000000000000:identity/"
TOPIC = "arn:aws:sns:us-east-1:000000000000:feedback"
POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},'
    '"Action":"ses:SendBounce","Resource":"%s"}]}'
)


def signed(server, method, parameters, *, in_query):
    """The signed request, with its parameters in the query string or in the body."""
    encoded = urlencode(parameters)
    url = f"{server.endpoint}/" + (f"?{encoded}" if in_query else "")
    body = b"" if in_query else encoded.encode()
    request = AWSRequest(method, url, data=body)
    request.headers["Host"] = str(server.addresses.http)
    SigV4Auth(Credentials("test", "test"), "ses", "us-east-1").add_auth(request)
    return url, dict(request.headers), body


def call(server, parameters, *, method="POST", in_query=False):
    """The root element of the answer, of an error too."""
    url, headers, body = signed(server, method, parameters, in_query=in_query)
    request = urllib.request.Request(url, body or None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return ET.fromstring(response.read())
    except urllib.error.HTTPError as failed:
        return ET.fromstring(failed.read())


def failure(root):
    """The code and text of an error."""
    found = root.find(f"{NAMESPACE}Error")
    assert found is not None, ET.tostring(root)
    return found.findtext(f"{NAMESPACE}Code"), found.findtext(f"{NAMESPACE}Message")


# --- the protocol -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_every_method_with_a_query_string_and_without_a_version(server, method):
    found = call(server, {"Action": "ListIdentities"}, method=method, in_query=True)
    assert found.tag == f"{NAMESPACE}ListIdentitiesResponse"
    assert found.findtext(f".//{NAMESPACE}member") == "example.com"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_every_method_with_a_body(server, method):
    found = call(server, {"Action": "DeleteIdentity", "Identity": "example.com"}, method=method)
    assert found.tag == f"{NAMESPACE}DeleteIdentityResponse"
    assert server.ses.list_identities()["Identities"] == []


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "FROB"])
def test_other_methods_are_refused(server, method):
    with RawHttp(server.addresses.http.port) as http:
        http.send(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = http.reply()
    assert (answer.status, answer.code) in {(405, "MalformedHttpRequest"), (400, answer.code)}


def upgrade(server, *, chunked=False):
    """The header section and body of a request that asks for HTTP/2 in clear text."""
    _, headers, body = signed(server, "POST", {"Action": "ListIdentities"}, in_query=False)
    headers |= {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        headers["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST / HTTP/1.1\r\n{lines}\r\n".encode(), body


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cut", ["one", "two", "in the body", "octets"])
def test_an_upgrade_to_h2c_is_ignored(server, cut, chunked):
    head, body = upgrade(server, chunked=chunked)
    with RawHttp(server.addresses.http.port) as http:
        segments = {
            "one": [head + body],
            "two": [head, body],
            "in the body": [head + body[:5], body[5:]],
            "octets": [bytes([octet]) for octet in head + body],
        }
        for segment in segments[cut]:
            http.send(segment)
        answer = http.reply()
        assert answer.status == 200, answer.body
        assert b"<member>example.com</member>" in answer.body
        http.send(head + body)  # the connection stays open
        assert http.reply().status == 200


def test_pipelined_upgrades(server):
    head, body = upgrade(server)
    with RawHttp(server.addresses.http.port, (head + body) * 3) as http:
        assert [http.reply().status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"Actions.member.2.StopAction.Scope": "RuleSet"}, "one type"),
        ({"Actions.member.1000000.StopAction.Scope": "RuleSet"}, "one type"),
        ({"Actions.member.2147483647.StopAction.Scope": "RuleSet"}, "one type"),
        (
            {
                "Actions.member.1.StopAction.Scope": "RuleSet",
                "Actions.member.1.SNSAction.TopicArn": TOPIC,
            },
            "one type",
        ),
        ({"Actions.member.0.StopAction.Scope": "RuleSet"}, "0 is not a valid index"),
        ({"Actions.member.-1.StopAction.Scope": "RuleSet"}, "-1 is not a valid index"),
        ({"Actions.member.x.StopAction.Scope": "RuleSet"}, "x is not a valid index"),
        ({"Recipients.member.0": "example.com"}, "0 is not a valid index"),
        ({"Enabled": "yes"}, "boolean must follow xsd1.1 definition"),
        ({"Enabled": "TRUE"}, "boolean must follow xsd1.1 definition"),
        ({"ScanEnabled": ""}, "boolean must follow xsd1.1 definition"),
    ],
)
def test_lists_and_booleans_that_are_refused(server, parameters, expected):
    server.ses.create_receipt_rule_set(RuleSetName="main")
    request = {"Action": "CreateReceiptRule", "RuleSetName": "main", "Rule.Name": "a"}
    request |= {f"Rule.{name}": value for name, value in parameters.items()}
    code, text = failure(call(server, request))
    if expected == "one type":
        assert (code, text) == (
            INVALID,
            "Exactly one action type must be specified for each ReceiptAction",
        )
    else:
        assert (code, text) == ("MalformedInput", expected)
    assert server.ses.describe_receipt_rule_set(RuleSetName="main")["Rules"] == []


@pytest.mark.parametrize(("text", "value"), [("1", True), ("0", False), ("true", True)])
def test_booleans(server, text, value):
    server.ses.create_receipt_rule_set(RuleSetName="main")
    request = {"Action": "CreateReceiptRule", "RuleSetName": "main", "Rule.Name": "a"}
    call(server, {**request, "Rule.Enabled": text})
    rule = server.ses.describe_receipt_rule(RuleSetName="main", RuleName="a")["Rule"]
    assert rule["Enabled"] is value


def test_gaps_in_other_lists_are_closed(server):
    server.ses.create_receipt_rule_set(RuleSetName="main")
    request = {"Action": "CreateReceiptRule", "RuleSetName": "main", "Rule.Name": "a"}
    call(server, {**request, "Rule.Recipients.member.7": "example.com"})
    rule = server.ses.describe_receipt_rule(RuleSetName="main", RuleName="a")["Rule"]
    assert rule["Recipients"] == ["example.com"]


def test_a_rule_without_recipients_and_actions(server):
    server.ses.create_receipt_rule_set(RuleSetName="main")
    server.ses.create_receipt_rule(RuleSetName="main", Rule={"Name": "a"})
    found = call(server, {"Action": "DescribeReceiptRule", "RuleSetName": "main", "RuleName": "a"})
    rule = found.find(f".//{NAMESPACE}Rule")
    names = [re.sub(r"\{.*\}", "", child.tag) for child in rule]
    assert names == ["Name", "Enabled", "TlsPolicy", "Actions", "ScanEnabled"]
    assert "Recipients" not in server.ses.describe_receipt_rule_set(RuleSetName="main")["Rules"][0]


# --- identities -------------------------------------------------------------------------------


def test_attributes_of_arns_are_returned_under_the_arns(server):
    ses = server.ses
    ses.verify_domain_dkim(Domain="example.com")
    names = [f"{ARN}example.com", "example.com", f"{ARN}no.example", "arn:aws:ses:x"]
    names.append(f"{ARN}example.com".replace("000000000000", "111122223333"))
    expected = {f"{ARN}example.com", "example.com"}
    calls = {
        "NotificationAttributes": ses.get_identity_notification_attributes,
        "DkimAttributes": ses.get_identity_dkim_attributes,
        "MailFromDomainAttributes": ses.get_identity_mail_from_domain_attributes,
        "VerificationAttributes": ses.get_identity_verification_attributes,
    }
    for member, get in calls.items():
        found = get(Identities=names)[member]
        assert found.keys() == expected, member
        assert found[f"{ARN}example.com"] == found["example.com"]


def test_operations_on_an_unknown_identity(server):
    ses = server.ses
    invalid = "Identity no.example is invalid. Must be a verified email address or domain."
    calls = [
        (ses.set_identity_notification_topic, {"NotificationType": "Bounce", "SnsTopic": TOPIC}),
        (ses.set_identity_feedback_forwarding_enabled, {"ForwardingEnabled": True}),
        (
            ses.set_identity_headers_in_notifications_enabled,
            {"NotificationType": "Bounce", "Enabled": True},
        ),
    ]
    for operation, arguments in calls[:2]:
        assert error(operation, Identity="no.example", **arguments) == (INVALID, invalid)
    operation, arguments = calls[2]
    it_must = invalid.replace("Must", "It must")
    assert error(operation, Identity="no.example", **arguments) == (INVALID, it_must)
    other = f"{ARN}example.com".replace("000000000000", "111122223333")
    assert error(
        ses.set_identity_feedback_forwarding_enabled, Identity=other, ForwardingEnabled=True
    ) == (INVALID, f"Identity {other} is invalid. Must be a verified email address or domain.")
    assert error(
        ses.set_identity_mail_from_domain, Identity="no.example", MailFromDomain="m.no.example"
    ) == (INVALID, "Identity <no.example> does not exist.")


@pytest.mark.parametrize("topic", ["", "feedback", "arn:aws:sqs:us-east-1:000000000000:feedback"])
def test_topics_that_are_invalid(server, topic):
    request = {"Identity": "example.com", "NotificationType": "Bounce", "SnsTopic": topic}
    found = call(server, {"Action": "SetIdentityNotificationTopic", **request})
    assert failure(found) == (INVALID, f"SNS topic {topic} is invalid.")


def test_headers_are_disabled_without_a_topic(server):
    ses = server.ses
    ses.set_identity_headers_in_notifications_enabled(
        Identity="example.com", NotificationType="Bounce", Enabled=False
    )
    found = ses.get_identity_notification_attributes(Identities=["example.com"])
    attributes = found["NotificationAttributes"]["example.com"]
    assert attributes["HeadersInBounceNotificationsEnabled"] is False


def test_a_policy_of_an_identity_that_was_never_registered(server):
    ses = server.ses
    arguments = {"PolicyName": "p", "Policy": POLICY % f"{ARN}no.example"}
    expected = (INVALID, "Invalid identity. Must be a verified email address or domain.")
    assert error(ses.put_identity_policy, Identity="no.example", **arguments) == expected
    assert error(ses.put_identity_policy, Identity=f"{ARN}no.example", **arguments) == expected
    code, _ = error(ses.put_identity_policy, Identity="no.example", PolicyName="p", Policy="{")
    assert code == "InvalidPolicy"  # checked before the identity


def test_a_policy_of_a_pending_identity(running):
    ses = running(verification="proved", dns="off").ses
    ses.verify_domain_identity(Domain="new.example")
    ses.put_identity_policy(
        Identity="new.example", PolicyName="p", Policy=POLICY % f"{ARN}new.example"
    )
    assert ses.list_identity_policies(Identity="new.example")["PolicyNames"] == ["p"]


def test_dkim_of_an_address_whose_domain_is_registered(server):
    ses = server.ses
    ses.set_identity_dkim_enabled(Identity="ann@example.com", DkimEnabled=True)
    assert error(ses.set_identity_dkim_enabled, Identity="ann@no.example", DkimEnabled=True) == (
        INVALID,
        "Domain no.example is not verified for DKIM signing.",
    )


def test_dkim_tokens_are_three(server):
    ses = server.ses
    tokens = ses.verify_domain_dkim(Domain="example.com")["DkimTokens"]
    assert len(set(tokens)) == 3
    found = ses.get_identity_dkim_attributes(Identities=["example.com"])["DkimAttributes"]
    assert found["example.com"]["DkimTokens"] == tokens


def test_custom_verification_mails(server, client):
    send = client.send_custom_verification_email
    nothing = (INVALID, "Email address not specified.")
    assert error(send, EmailAddress="", TemplateName="t") == nothing
    assert error(send, EmailAddress="  ", TemplateName="t") == nothing
    assert error(send, TemplateName="t") == nothing
    for address in ("ann", "@example.com", "ann@", "a@b@example.com", "a b@example.com"):
        assert error(send, EmailAddress=address, TemplateName="t") == (
            INVALID,
            f"Invalid email address<{address}>.",
        )
    assert error(send, EmailAddress="ann@example.com") == (INVALID, "TemplateName is required.")
    assert error(
        send, EmailAddress="ann@example.com", TemplateName="t", ConfigurationSetName="c"
    ) == ("CustomVerificationEmailTemplateDoesNotExist", "Template <t> does not exist")
    create = client.create_custom_verification_email_template
    assert error(create, TemplateName="t") == (INVALID, "FromEmailAddress is required.")


def test_reordering(server, client):
    ses = server.ses
    ses.create_receipt_rule_set(RuleSetName="main")
    for name in "cba":
        ses.create_receipt_rule(RuleSetName="main", Rule={"Name": name})
    expected = (INVALID, "Positions for rules not found: a, b, c")
    assert error(client.reorder_receipt_rule_set, RuleSetName="main") == expected
    assert error(client.reorder_receipt_rule_set, RuleSetName="main", RuleNames=[]) == expected
    empty = [
        "Value at '{}' failed to satisfy constraint: Member must have length greater than or "
        "equal to 1",
        "Value at '{}' failed to satisfy constraint: Member must satisfy regular expression "
        "pattern: ^[a-zA-Z0-9_.-]+$",
    ]
    found = error(client.reorder_receipt_rule_set, RuleSetName="", RuleNames=["a"])
    assert found == violations(*(text.format("ruleSetName") for text in empty))
    found = error(client.clone_receipt_rule_set, OriginalRuleSetName="", RuleSetName="")
    names = ("originalRuleSetName", "ruleSetName")
    assert found == violations(*(text.format(name) for name in names for text in empty))


def test_a_gap_in_the_names_of_an_order_is_an_empty_name(server):
    server.ses.create_receipt_rule_set(RuleSetName="main")
    server.ses.create_receipt_rule(RuleSetName="main", Rule={"Name": "a"})
    request = {"Action": "ReorderReceiptRuleSet", "RuleSetName": "main"}
    code, text = failure(call(server, {**request, "RuleNames.member.3": "a"}))
    assert code == "ValidationError"
    assert "Value at 'ruleNames' failed to satisfy constraint: Member must satisfy" in text


@pytest.mark.parametrize("text", ["ann", "@example.com", "a b@example.com", ""])
def test_an_invalid_address(client, text):
    expected = (INVALID, f"Invalid email address<{text}>.")
    assert error(client.verify_email_identity, EmailAddress=text) == expected


@pytest.mark.parametrize("text", ["example.com.", "a b", "ann@example.com", "", "-x.example"])
def test_an_invalid_domain(client, text):
    expected = (INVALID, f"Invalid domain name {text}.")
    assert error(client.verify_domain_identity, Domain=text) == expected
    assert error(client.verify_domain_dkim, Domain=text) == expected


@pytest.mark.parametrize("number", [0, -1, 1001, 2**31])
def test_the_size_of_a_page(client, number):
    assert error(client.list_identities, MaxItems=number) == (
        INVALID,
        f"Value {number} for parameter MaxItems is invalid. MaxItems must be between 1 and 1000.",
    )


def test_tokens_of_pages(client):
    expected = (INVALID, "Invalid NextToken <garbage>.")
    assert error(client.list_identities, NextToken="garbage") == expected
    assert error(client.list_receipt_rule_sets, NextToken="garbage") == expected


def test_the_order_of_enum_values(client):
    assert error(client.list_identities, IdentityType="x") == violations(
        "Value at 'identityType' failed to satisfy constraint: Member must satisfy enum value "
        "set: [Domain, EmailAddress]"
    )
    assert error(
        client.set_identity_mail_from_domain, Identity="example.com", BehaviorOnMXFailure="x"
    ) == violations(
        "Value at 'behaviorOnMXFailure' failed to satisfy constraint: Member must satisfy enum "
        "value set: [RejectMessage, UseDefaultValue]"
    )


def refused_action(running, action):
    """The error of a rule with this action, by a client that checks nothing itself."""
    server = running()
    server.set_up('[buckets]\nmails = "directory:mails"\n')
    ses = server.ses_client(parameter_validation=False)
    ses.create_receipt_rule_set(RuleSetName="main")
    rule = {"Name": "a", "Actions": [action]}
    return error(ses.create_receipt_rule, RuleSetName="main", Rule=rule)


@pytest.mark.parametrize("arn", ["", "alias/aws/ses", "arn:aws:s3:::bucket", "arn:aws:kms"])
def test_keys_that_are_no_arns(running, arn):
    action = {"S3Action": {"BucketName": "mails", "KmsKeyArn": arn}}
    expected = (INVALID, f"Invalid KMS encryption key ARN: {arn}")
    assert refused_action(running, action) == expected


@pytest.mark.parametrize(
    ("arn", "is_short"),
    [
        ("", True),
        ("role", True),
        ("arn:aws:iam::000000000000:user/mails", False),
        ("arn:aws:iam::000000000000:role/", False),
        ("arn:aws:iam::000000000000:role//mails", False),
        ("arn:aws:iam::000000000000:role/mails or not", False),
    ],
)
def test_roles_that_are_no_arns(running, arn, is_short):
    where = "Value at 'rule.actions.1.member.s3Action.iamRoleArn' failed to satisfy constraint: "
    expected = [
        f"{where}Member must have length greater than or equal to 20",
        f"{where}Member must satisfy regular expression pattern: "
        r"arn:[\w-]+:iam::[0-9]+:role(\u002F)([\u0021-\u007E]+\u002F)?([\w+=,.@-]+)",
    ]
    action = {"S3Action": {"BucketName": "mails", "IamRoleArn": arn}}
    assert refused_action(running, action) == violations(*expected[0 if is_short else 1 :])


@pytest.mark.parametrize(
    "members",
    [
        {"KmsKeyArn": "arn:aws:kms:us-east-1:000000000000:alias/aws/ses"},
        {"KmsKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567"},
        {"KmsKeyArn": "arn:aws-us-gov:kms:us-gov-west-1:000000000000:key/mrk-12"},
        {"IamRoleArn": "arn:aws:iam::000000000000:role/service-role/mails"},
    ],
)
def test_keys_and_roles(running, members):
    server = running()
    server.set_up('[buckets]\nmails = "directory:mails"\n')
    ses = server.ses
    ses.create_receipt_rule_set(RuleSetName="main")
    action = {"BucketName": "mails", **members}
    rule = {"Name": "a", "Actions": [{"S3Action": action}]}
    ses.create_receipt_rule(RuleSetName="main", Rule=rule)
    found = ses.describe_receipt_rule(RuleSetName="main", RuleName="a")["Rule"]
    assert found["Actions"] == [{"S3Action": action}]


def test_the_quota(running):
    quota = running().ses.get_send_quota()
    assert quota["Max24HourSend"] > 0
    assert quota["MaxSendRate"] > 0
    quota = running(send_quota="200", send_rate="1", send_bounce_rate="0").ses.get_send_quota()
    assert (quota["Max24HourSend"], quota["MaxSendRate"]) == (200, 1)
