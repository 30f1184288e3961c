"""Sending-authorization policies, by boto3: the texts that others probed, and what is refused."""

import json

import pytest

from tests.contract.errors import error, violations

ARN = "arn:aws:ses:us-east-1:000000000000:identity/example.com"


def document(**changes):
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": "111111111111"},
        "Action": "ses:SendBounce",
        "Resource": ARN,
        **changes,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, indent=2)


def put(ses, name="one", identity="example.com", policy=None):
    ses.put_identity_policy(Identity=identity, PolicyName=name, Policy=policy or document())


def refused(client, name="one", identity="example.com", policy=None):
    return error(
        client.put_identity_policy,
        Identity=identity,
        PolicyName=name,
        Policy=document() if policy is None else policy,
    )


def test_putting_listing_getting_and_deleting(server):
    ses = server.ses
    put(ses, "two")
    put(ses, "one", identity=ARN)
    assert ses.list_identity_policies(Identity="EXAMPLE.com")["PolicyNames"] == ["one", "two"]
    found = ses.get_identity_policies(Identity="example.com", PolicyNames=["two", "absent"])
    compact = json.dumps(json.loads(document()), separators=(",", ":"))
    assert found["Policies"] == {"two": compact}
    put(ses, "two", policy=document(Effect="Deny"))
    (text,) = ses.get_identity_policies(Identity=ARN, PolicyNames=["two"])["Policies"].values()
    assert json.loads(text)["Statement"][0]["Effect"] == "Deny"
    ses.delete_identity_policy(Identity="example.com", PolicyName="two")
    ses.delete_identity_policy(Identity="example.com", PolicyName="two")
    assert ses.list_identity_policies(Identity="example.com")["PolicyNames"] == ["one"]


def test_policies_of_an_identity_that_does_not_exist(server):
    ses = server.ses
    assert ses.list_identity_policies(Identity="no.example")["PolicyNames"] == []
    ses.delete_identity_policy(Identity="no.example", PolicyName="one")


def test_deleting_the_identity_deletes_its_policies(server):
    ses = server.ses
    put(ses)
    ses.delete_identity(Identity="example.com")
    ses.verify_domain_identity(Domain="example.com")
    assert ses.list_identity_policies(Identity="example.com")["PolicyNames"] == []


def test_the_21st_policy(server):
    ses = server.ses
    for number in range(20):
        put(ses, f"p{number}")
    put(ses, "p7")  # one that exists is replaced
    assert refused(ses, "p20") == (
        "InvalidParameterValue",
        "Number of policies for <example.com> exceeds max allowed number of policies per resource",
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", ("InvalidParameterValue", "PolicyName is required.")),
        (" ", ("InvalidParameterValue", "PolicyName is required.")),
        (
            "a.b",
            (
                "InvalidParameterValue",
                "PolicyName is invalid. Policy names must only include alpha-numeric characters, "
                "dashes, and underscores.",
            ),
        ),
        (
            "x" * 65,
            violations(
                "Value at 'policyName' failed to satisfy constraint: "
                "Member must have length less than or equal to 64"
            ),
        ),
    ],
)
def test_names_that_are_none(client, name, expected):
    assert refused(client, name) == expected


def test_without_a_name(client):
    expected = ("InvalidParameterValue", "PolicyName is required.")
    assert error(client.put_identity_policy, Identity="example.com", Policy="{}") == expected
    assert error(client.delete_identity_policy, Identity="example.com") == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("{}", "Statement is missing"),
        ("nonsense", "not a JSON document: Expecting value: line 1 column 1 (char 0)"),
        (
            document(Sid="x" * 4096),
            "the policy has {} octets, 4096 are allowed".format(len(document(Sid="x" * 4096))),
        ),
        (
            document(Condition={"StringSame": {"ses:FromAddress": "x"}}),
            "Statement[1].Condition.StringSame: there is no operator StringSame",
        ),
        (
            document(Principal={"AWS": "ann"}),
            "Statement[1].Principal.AWS: 'ann' is not a principal: write an account's 12 digits, "
            "arn:aws:iam::ACCOUNT:root, arn:aws:iam::ACCOUNT:user/NAME, or *",
        ),
        (
            document(Resource=ARN.replace("example.com", "other.example")),
            "Statement[1].Resource: arn:aws:ses:us-east-1:000000000000:identity/other.example is "
            f"not the identity that the policy is for, {ARN}",
        ),
        (document(Action="s3:GetObject"), "Statement[1].Action: s3:GetObject is no action of SES"),
    ],
)
def test_policies_that_are_none(client, policy, expected):
    assert refused(client, policy=policy) == ("InvalidPolicy", expected)


def test_another_accounts_identity(server):
    other = ARN.replace("000000000000", "111111111111")
    ses = server.ses
    expected = (
        "InvalidParameterValue",
        "Invalid identity. Must be a verified email address or domain.",
    )
    assert refused(ses, identity=other) == expected
    expected = ("InvalidParameterValue", f"Identity <{other}> does not exist.")
    assert error(ses.list_identity_policies, Identity=other) == expected


def test_policies_are_each_accounts_own(server):
    put(server.ses)
    eve = server.ses_of("111111111111", "eve")
    assert eve.list_identity_policies(Identity="example.com")["PolicyNames"] == []
    eve.delete_identity_policy(Identity="example.com", PolicyName="one")
    assert server.ses.list_identity_policies(Identity="example.com")["PolicyNames"] == ["one"]
