"""Who may bounce: identities of other accounts, their policies, and users' own policies."""

import json
from datetime import timedelta

import pytest

from tests.contract.errors import error

A, B = "000000000000", "111111111111"
DOMAIN = f"arn:aws:ses:us-east-1:{A}:identity/example.com"


def denied(user, resource=DOMAIN):
    return (
        "AccessDenied",
        f"User `{user}' is not authorized to perform `ses:SendBounce' on resource `{resource}'",
    )


BEA = f"arn:aws:iam::{B}:user/bea"
NOT_VERIFIED = (
    "MessageRejected",
    "Email address is not verified. The following identities failed the check in region "
    "US-EAST-1: bounce@example.com",
)


def policy(*statements, **changes):
    allow = {
        "Effect": "Allow",
        "Principal": {"AWS": B},
        "Action": "ses:SendBounce",
        "Resource": DOMAIN,
    }
    return json.dumps(
        {"Version": "2012-10-17", "Statement": list(statements) or [{**allow, **changes}]}
    )


def put(server, document, identity="example.com"):
    server.ses.put_identity_policy(Identity=identity, PolicyName="p", Policy=document)


def request(message, sender="bounce@example.com", recipient="bob@example.com", **more):
    item = {"Recipient": recipient, "BounceType": "DoesNotExist", **more.pop("item", {})}
    return {
        "OriginalMessageId": message,
        "BounceSender": sender,
        "BouncedRecipientInfoList": [item],
        **more,
    }


@pytest.fixture
def bea(server):
    """A user of account B, which receives for b.example and owns nothing else."""
    client = server.ses_of(B, "bea")
    client.verify_domain_identity(Domain="b.example")
    return client


@pytest.fixture
def own(server, bea):
    """A message that B received."""
    return server.send_mail(recipients=("bob@b.example",))


def bounce(client, message, **more):
    return client.send_bounce(**request(message, recipient="bob@b.example", **more))


def refusal(client, message, **more):
    return error(client.send_bounce, **request(message, recipient="bob@b.example", **more))


def test_another_accounts_sender_by_its_policy(server, bea, own, clock):
    """The issue's third command, step by step."""
    assert refusal(bea, own) == NOT_VERIFIED
    assert refusal(bea, own, BounceSenderArn=DOMAIN) == denied(BEA)
    until = (clock.now() + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {
        "StringEquals": {"ses:FromAddress": "bounce@example.com"},
        "DateLessThan": {"aws:CurrentTime": until},
    }
    put(server, policy(Condition=condition))
    assert bounce(bea, own, BounceSenderArn=DOMAIN)["MessageId"]
    assert refusal(bea, own) == NOT_VERIFIED  # without the ARN it is B's own identities
    other = {"sender": "other@example.com", "BounceSenderArn": DOMAIN}
    assert refusal(bea, own, **other) == denied(BEA)
    clock.advance(timedelta(hours=2, seconds=1))
    assert refusal(bea, own, BounceSenderArn=DOMAIN) == denied(BEA)


def test_the_bounce_is_the_callers(server, bea, own):
    put(server, policy())
    bounce(bea, own, BounceSenderArn=DOMAIN)
    assert server.outbox() == []
    assert bea.get_send_quota()["SentLast24Hours"] == 1


def test_an_arn_of_what_does_not_exist_reads_like_one_without_a_policy(server, bea, own):
    for name in ("no.example", "example.com"):
        arn = DOMAIN.replace("example.com", name)
        found = refusal(bea, own, sender=f"x@{name}", BounceSenderArn=arn)
        assert found == denied(BEA, arn)


def test_an_identity_that_is_not_verified_any_more(server, bea, own):
    put(server, policy())
    server.ses.delete_identity(Identity="example.com")
    assert refusal(bea, own, BounceSenderArn=DOMAIN) == denied(BEA)


def test_an_arn_of_another_region(server, bea, own):
    put(server, policy())
    arn = DOMAIN.replace("us-east-1", "eu-west-1")
    assert refusal(bea, own, BounceSenderArn=arn) == denied(BEA, arn)


def test_an_arn_that_does_not_cover_the_sender(server, bea, own):
    put(server, policy())
    found = refusal(bea, own, sender="x@other.example", BounceSenderArn=DOMAIN)
    assert found == (
        "InvalidParameterValue",
        "BounceSenderArn: example.com does not cover x@other.example",
    )


@pytest.mark.parametrize("domain", ["EXAMPLE.com", "example.COM"])
def test_no_spelling_gets_by_a_condition(server, bea, own, domain):
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "ses:*",
        "Resource": DOMAIN,
        "Condition": {"StringEquals": {"ses:FromAddress": "boss@example.com"}},
    }
    put(server, policy(json.loads(policy())["Statement"][0], deny))
    assert bounce(bea, own, BounceSenderArn=DOMAIN)
    found = refusal(bea, own, sender=f"boss@{domain}", BounceSenderArn=DOMAIN)
    assert found == denied(BEA)


def test_conditions_on_the_display_name_the_client_and_tls(server, bea, own):
    for condition, allowed in (
        ({"StringLike": {"ses:FromDisplayName": "Mail *"}}, True),
        ({"StringLike": {"ses:FromDisplayName": "Mail"}}, False),
        ({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}, True),
        ({"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}}, False),
        ({"Bool": {"aws:SecureTransport": "true"}}, False),
        ({"StringLike": {"aws:UserAgent": "Boto3/*"}}, True),
        ({"StringEquals": {"ses:ApiVersion": "2010-12-01"}}, True),
        ({"StringEquals": {"aws:PrincipalAccount": B}}, True),
        ({"ArnLike": {"aws:PrincipalArn": f"arn:aws:iam::{B}:user/b*"}}, True),
        ({"Null": {"ses:FeedbackAddress": "true", "ses:Recipients": "true"}}, True),
    ):
        put(server, policy(Condition=condition))
        asked = {"sender": "Mail Team <bounce@example.com>", "BounceSenderArn": DOMAIN}
        if allowed:
            assert bounce(bea, own, **asked), condition
        else:
            assert refusal(bea, own, **asked) == denied(BEA), condition


# --- mail that another account received -----------------------------------------------------------


def test_mail_that_another_account_received(server, bea):
    message = server.send_mail(recipients=("bob@example.com", "carl@example.com"))
    asked = request(message, sender="x@b.example")
    unknown = ("MessageRejected", f"Message not found: {message} was not received here.")
    assert error(bea.send_bounce, **asked) == unknown
    asked = request(message, sender="x@b.example", item={"RecipientArn": DOMAIN})
    assert error(bea.send_bounce, **asked) == denied(BEA)
    put(server, policy())
    assert bea.send_bounce(**asked)["MessageId"]
    # Nothing but what the ARN opens:
    without = {"Recipient": "carl@example.com", "BounceType": "DoesNotExist"}
    asked["BouncedRecipientInfoList"].append(without)
    assert error(bea.send_bounce, **asked) == (
        "MessageRejected",
        "Not a recipient of the original message: carl@example.com",
    )
    without["RecipientArn"] = DOMAIN
    assert bea.send_bounce(**asked)["MessageId"]


def test_an_address_identity_opens_its_own_recipient_only(server, bea):
    server.ses.verify_email_identity(EmailAddress="bob@example.com")
    arn = DOMAIN.replace("example.com", "bob@example.com")
    put(server, policy(Resource=arn), identity="bob@example.com")
    message = server.send_mail(recipients=("bob@example.com", "carl@example.com"))
    asked = request(message, sender="x@b.example", item={"RecipientArn": arn})
    assert bea.send_bounce(**asked)["MessageId"]
    item = {
        "RecipientArn": arn,
        "BounceType": None,
        "RecipientDsnFields": {
            "FinalRecipient": "carl@example.com",
            "Action": "failed",
            "Status": "5.1.1",
        },
    }
    del item["BounceType"]
    asked = request(message, sender="x@b.example", recipient="bob+x@example.com", item=item)
    del asked["BouncedRecipientInfoList"][0]["BounceType"]
    assert error(bea.send_bounce, **asked) == (
        "MessageRejected",
        "Not a recipient of the original message: bob+x@example.com",
    )
    asked = request(message, sender="x@b.example", recipient="carl@example.com")
    asked["BouncedRecipientInfoList"][0]["RecipientArn"] = arn
    assert error(bea.send_bounce, **asked) == (
        "InvalidParameterValue",
        "BouncedRecipientInfoList.member.1.RecipientArn: bob@example.com does not cover "
        "carl@example.com",
    )


def test_a_message_for_both_accounts(server, bea):
    put(server, policy())
    message = server.send_mail(recipients=("bob@example.com", "bea@b.example"))
    asked = request(message, sender="x@b.example", recipient="bea@b.example")
    assert bea.send_bounce(**asked)["MessageId"]
    other = {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
    asked["BouncedRecipientInfoList"].append(other)
    assert error(bea.send_bounce, **asked)[1].endswith("message: bob@example.com")
    other["RecipientArn"] = DOMAIN
    assert bea.send_bounce(**asked)["MessageId"]


def test_not_more_than_twenty_identities_by_arn(server, bea, own):
    asked = request(own, sender="x@b.example", recipient="bob@b.example")
    asked["BouncedRecipientInfoList"] = [
        {
            "Recipient": f"bob@d{number}.example",
            "BounceType": "DoesNotExist",
            "RecipientArn": f"arn:aws:ses:us-east-1:{A}:identity/d{number}.example",
        }
        for number in range(21)
    ]
    assert error(bea.send_bounce, **asked) == (
        "InvalidParameterValue",
        "A bounce may name at most 20 identities by ARN.",
    )


# --- the owner and its users ----------------------------------------------------------------------


def test_the_owner_needs_no_policy_but_a_deny_holds_for_it_too(server):
    message = server.send_mail()
    ses = server.ses
    assert ses.send_bounce(**request(message))
    assert ses.send_bounce(**request(message, BounceSenderArn=DOMAIN))
    put(server, policy(Effect="Deny", Principal="*"))
    for more in ({}, {"BounceSenderArn": DOMAIN}):
        found = error(ses.send_bounce, **request(message, **more))
        assert found == denied(f"arn:aws:iam::{A}:user/developer")


def restrict(server, user, *statements, account=A):
    document = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    server.run(server.app.accounts.put_policy(account, user, "limits", document))


SEND = {"Effect": "Allow", "Action": "ses:SendBounce", "Resource": "*"}


def test_a_user_without_policies_may_do_all(server):
    ann = server.ses_of(A, "ann")
    ann.list_identities()
    assert ann.send_bounce(**request(server.send_mail()))


def test_a_user_with_policies_may_do_what_they_allow(server):
    ann = server.ses_of(A, "ann")
    message = server.send_mail()
    allowed = {"StringEquals": {"ses:FromAddress": "bounce@example.com"}}
    restrict(server, "ann", {**SEND, "Condition": allowed})
    assert ann.send_bounce(**request(message))
    arn = f"arn:aws:iam::{A}:user/ann"
    assert error(ann.send_bounce, **request(message, sender="x@example.com")) == denied(arn)
    assert error(ann.verify_email_identity, EmailAddress="x@y.example") == (
        "AccessDenied",
        f"User: {arn} is not authorized to perform: ses:VerifyEmailIdentity",
    )
    # An operation that is not built, or wrong input: nobody learns more without permission.
    assert error(ann.list_templates)[0] == "AccessDenied"
    assert error(ann.list_identities, MaxItems=9999)[0] == "AccessDenied"


def test_other_parameters_do_not_stand_in_for_the_ones_that_count(server):
    """A parameter that the operation does not have must not feed a condition."""
    ann = server.ses_of(A, "ann", parameter_validation=False)
    allowed = {"StringEquals": {"ses:FromAddress": "bounce@example.com"}}
    arn = DOMAIN.replace("example.com", "allowed.example")
    restrict(
        server,
        "ann",
        {**SEND, "Condition": allowed},
        {"Effect": "Allow", "Action": "ses:Verify*", "Resource": arn},
    )

    def add(params, **_):
        params["body"] |= {"Source": "bounce@example.com", "Identity": "allowed.example"}

    ann.meta.events.register("before-call.ses", add)
    asked = request(server.send_mail(), sender="boss@example.com")
    assert error(ann.send_bounce, **asked)[0] == "AccessDenied"
    ann.verify_domain_identity(Domain="allowed.example")
    assert error(ann.verify_domain_identity, Domain="other.example")[0] == "AccessDenied"


def test_a_policy_on_resources(server):
    ann = server.ses_of(A, "ann")
    own = {"Effect": "Allow", "Action": "ses:*IdentityPolic*", "Resource": DOMAIN}
    restrict(server, "ann", own)
    for name in ("example.com", "EXAMPLE.COM", DOMAIN):
        assert ann.list_identity_policies(Identity=name)["PolicyNames"] == []
    assert error(ann.list_identity_policies, Identity="o.example")[0] == "AccessDenied"


def test_a_users_deny_wins_over_the_identitys_allow(server):
    ann = server.ses_of(A, "ann")
    put(server, policy(Principal={"AWS": f"arn:aws:iam::{A}:user/ann"}))
    message = server.send_mail()
    restrict(server, "ann", {"Effect": "Allow", "Action": "ses:Get*", "Resource": "*"})
    # Within an account either kind of policy is enough.
    assert ann.send_bounce(**request(message))
    restrict(server, "ann", {**SEND, "Effect": "Deny"})
    assert error(ann.send_bounce, **request(message))[0] == "AccessDenied"


def test_across_accounts_both_kinds_are_needed(server, bea, own):
    put(server, policy())
    restrict(server, "bea", {"Effect": "Allow", "Action": "ses:Get*", "Resource": "*"}, account=B)
    assert refusal(bea, own, BounceSenderArn=DOMAIN) == denied(BEA)
    restrict(server, "bea", {**SEND, "Resource": DOMAIN}, account=B)
    assert bounce(bea, own, BounceSenderArn=DOMAIN)


def test_the_closest_identity_is_the_one_that_is_used(server):
    """An address of its own beside its domain: its policies count, not the domain's."""
    ses = server.ses
    ses.verify_email_identity(EmailAddress="bounce@example.com")
    put(server, policy(Effect="Deny", Principal="*"))
    message = server.send_mail()
    assert ses.send_bounce(**request(message))
    assert error(ses.send_bounce, **request(message, sender="x@example.com"))[0] == "AccessDenied"


@pytest.mark.parametrize("sender", ["x@example.com", "x@sub.example.com", "X+tag@EXAMPLE.com"])
def test_what_a_domain_covers(server, sender):
    assert server.ses.send_bounce(**request(server.send_mail(), sender=sender))


def test_what_an_address_covers(server, bea):
    bea.verify_email_identity(EmailAddress="Ann@c.example")
    message = server.send_mail(recipients=("bob@b.example",))
    for sender in ("Ann@c.example", "Ann+tag@C.example"):
        assert bounce(bea, message, sender=sender)
    for sender in ("ann@c.example", "Bob@c.example", "Ann@sub.c.example"):
        assert refusal(bea, message, sender=sender)[0] == "MessageRejected"


@pytest.mark.parametrize(
    "sender",
    [
        "ceo@example.com",
        '"ceo"@example.com',
        r'"c\eo"@example.com',
        "ceo@EXAMPLE.com",
        "The boss <ceo@example.com>",
        '"x" <"ceo"@Example.Com>',
    ],
)
def test_a_deny_on_an_address_holds_for_every_spelling(server, bea, own, sender):
    deny = {
        "Effect": "Deny",
        "Principal": {"AWS": B},
        "Action": "ses:SendBounce",
        "Resource": DOMAIN,
        "Condition": {"StringEquals": {"ses:FromAddress": "ceo@example.com"}},
    }
    allow = {key: value for key, value in deny.items() if key != "Condition"} | {"Effect": "Allow"}
    put(server, policy(allow, deny))
    assert refusal(bea, own, sender=sender, BounceSenderArn=DOMAIN) == denied(BEA)
    assert bounce(bea, own, sender="bounce@example.com", BounceSenderArn=DOMAIN)["MessageId"]


@pytest.mark.parametrize(
    "name",
    [
        "The CEO",
        '"The CEO"',
        r'"The C\EO"',
        "=?utf-8?q?The_CEO?=",
        "=?utf-8?b?VGhlIENFTw==?=",
        "=?iso-8859-1?q?The_=43?= =?iso-8859-1?q?EO?=",
        '"=?us-ascii*en?q?The?= =?us-ascii?q?_CEO?="',
    ],
)
def test_a_deny_on_a_display_name_is_held_against_what_people_read(server, bea, own, name):
    deny = {
        "Effect": "Deny",
        "Principal": {"AWS": B},
        "Action": "ses:SendBounce",
        "Resource": DOMAIN,
        "Condition": {"StringLike": {"ses:FromDisplayName": "*CEO*"}},
    }
    allow = {key: value for key, value in deny.items() if key != "Condition"} | {"Effect": "Allow"}
    put(server, policy(allow, deny))
    sender = f"{name} <bounce@example.com>"
    assert refusal(bea, own, sender=sender, BounceSenderArn=DOMAIN) == denied(BEA)
    sender = "Postmaster <bounce@example.com>"
    assert bounce(bea, own, sender=sender, BounceSenderArn=DOMAIN)["MessageId"]
