"""Setup files: refused for all that the API refuses, with the same texts."""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from sendback.app import App
from sendback.config.loading import load
from sendback.service.rules.setup_file import SetupError, parse_setup, read_setup
from sendback.store.engine.store import prepare_schema
from sendback.store.rules.setup import ActiveDeletion, ActiveDeletionError

ACCOUNT = "000000000000"


@dataclass(frozen=True)
class Place:
    """An app with an empty store, and the folder of the setup files."""

    app: App
    folder: Path

    def apply(self, text, **options):
        setup = read_setup(text, self.folder / "setup.toml")
        return asyncio.run(self.app.setup.apply(ACCOUNT, setup, **{"prune": False, **options}))


@pytest.fixture
def make_place(tmp_path):
    """A function that makes a place, by settings."""
    places = []

    def make(**flags):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "file").touch()
        given = {"data_dir": str(tmp_path / "data"), "verification": "at_once", **flags}
        settings = load(given, environ={}).settings
        prepare_schema(settings.database_url)
        places.append(Place(App(settings), tmp_path))
        return places[-1]

    yield make
    for place in places:
        place.app.close()


@pytest.fixture
def place(make_place):
    return make_place()


NULL = "failed to satisfy constraint: Member must not be null"
RULE = '[[rule_sets.a.rules]]\nName = "x"\n'
STOP = '{ StopAction = { Scope = "RuleSet" } }'
CHECK = "arn:aws:lambda:us-east-1:000000000000:function:check"


def action(name, **members):
    """A rule with one action, as text of a setup file."""
    shown = ", ".join(f"{member} = {json.dumps(value)}" for member, value in members.items())
    return f"{RULE}Actions = [ {{ {name} = {{ {shown} }} }} ]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "is no TOML file"),
        ("rule_set = 1", "rule_set is none of"),
        ("identities = 1", "identities must be a list"),
        ("identities = [1]", "identities[1] must be a string"),
        ('identities = ["a b"]', "identities[1]: Invalid domain name"),
        ('identities = [""]', "identities[1]: Invalid domain name ."),
        ('active_rule_set = "x"', "active_rule_set: Rule set does not exist: x"),
        ('active_rule_set = "-x"', "Not a valid ruleSetName: -x"),
        ("active_rule_set = 1", "active_rule_set must be the name of a rule set"),
        ('active_rule_set = ""', "active_rule_set must be the name of a rule set"),
        ("[rule_sets.a]\nrule = 1", "rule_sets.a must hold"),
        ('[rule_sets."-a"]', "rule_sets.-a: Not a valid ruleSetName: -a"),
        ('[rule_sets."a b"]', "Value at 'ruleSetName' failed to satisfy constraint"),
        (
            "[[rule_sets.a.rules]]\nEnabled = true",
            "rule_sets.a.rules[1]: 2 validation errors detected: Value at 'rule.name' failed",
        ),
        (f"{RULE}Enabld = true", "rule_sets.a.rules[1].Enabld is none of"),
        (f"{RULE}Enabled = 1", "rule_sets.a.rules[1].Enabled must be a boolean"),
        (
            f'{RULE}TlsPolicy = "No"',
            "rule_sets.a.rules[1]: 1 validation error detected: Value at 'rule.tlsPolicy' failed "
            "to satisfy constraint: Member must satisfy enum value set: [Optional, Require]",
        ),
        ('[[rule_sets.a.rules]]\nName = "-x"', "Not a valid ruleName: -x"),
        (f"{RULE}\n{RULE}", "rule_sets.a.rules[2]: Rule already exists: x"),
        (f'{RULE}Recipients = ["a b"]', "Invalid recipient: a b"),
        (f'{RULE}Recipients = ["a\\u0000"]', "the value holds a NUL character"),
        (f"{RULE}Actions = [ {{}} ]", "Exactly one action type must be specified"),
        (f"{RULE}Actions = [ {{ StopAction = {{}} }} ]", "stopAction.scope' failed"),
        (
            f"{RULE}Actions = [ {', '.join([STOP] * 2)} ]",
            "Stop action, if any, must be placed at the end of the actions list",
        ),
        (
            f"{RULE}Actions = [ {', '.join([STOP] * 11)} ]",
            "rule_sets.a.rules[1]: Too many actions",
        ),
        (action("S3Action"), f"Value at 'rule.actions.1.member.s3Action.bucketName' {NULL}"),
        (action("S3Action", BucketName="bb", KmsKeyArn="k"), "Invalid KMS encryption key ARN: k"),
        (
            action("S3Action", BucketName="bb", IamRoleArn="r"),
            "iamRoleArn' failed to satisfy constraint: Member must have length greater than or",
        ),
        (action("AddHeaderAction", HeaderName="a b", HeaderValue="x"), "Invalid header name: a b"),
        (
            action("BounceAction", SmtpReplyCode="550", Message="No", Sender="a@b.example"),
            "rule_sets.a: rule x: Identity is not verified: a@b.example",
        ),
        (
            action("BounceAction", SmtpReplyCode="550", Message="No", Sender="nobody"),
            "rule_sets.a: rule x: Identity is not verified: nobody",
        ),
        (action("S3Action", BucketName="mail"), "rule_sets.a.rules[1]: No such bucket: mail"),
        (
            action("LambdaAction", FunctionArn=CHECK),
            f"rule_sets.a.rules[1]: Could not invoke Lambda function: {CHECK}",
        ),
        ('[[filters]]\nName = "x"\nPolicy = "Block"\nCidr = "y"', "Invalid CIDR block: y"),
        ('[[filters]]\nName = "x"\nPolicy = "Block"', f"Value at 'filter.ipFilter.cidr' {NULL}"),
        ('[[filters]]\nName = "x"', f"Value at 'filter.ipFilter.policy' {NULL}"),
        (
            '[[filters]]\nName = "x"\nPolicy = "No"\nCidr = "10.0.0.1"',
            "Member must satisfy enum value set: [Allow, Block]",
        ),
        (
            '[[filters]]\nName = "x"\nPolicy = "Block"\nCidr = "10.0.0.1"\n' * 2,
            "filters[2]: Filter already exists: x",
        ),
        ("[[filters]]\nNam = 1", "must hold Name, Policy and Cidr"),
        ('[buckets]\nx = "y"', "buckets.x: 'y' is no target: write directory:PATH"),
        ('[buckets]\nx = "http://127.0.0.1:1"', "is no target: write directory:PATH"),
        ("[buckets]\nx = 1", "buckets.x must be a string"),
        ('[topics]\nx = "directory:y"', "is no target: write an http or https URL"),
        ('[functions]\nx = "python:y.py"', "is no target: write python:FILE.py:FUNCTION"),
        ('[functions]\nx = "python:none.py:f"', "functions.x: there is no file {project}/none.py"),
        ('[functions]\nx = "node:data.mjs:f"', "functions.x: there is no file {project}/data.mjs"),
        ('[functions]\nx = "node:folder:f"', "functions.x: there is no file {project}/folder"),
        ('[buckets]\nx = "directory:file"', "file is no directory that can be written"),
        ('[mailboxes]\nx = "http://127.0.0.1"', "is no target: write smtp://HOST:PORT"),
    ],
)
def test_an_invalid_setup_changes_nothing(place, text, reason):
    with pytest.raises(SetupError, match=re.escape(reason.replace("{project}", str(place.folder)))):
        place.apply(text if "identities" in text else f'identities = ["example.org"]\n{text}')
    assert list(asyncio.run(place.app.accounts.list())) == []


@pytest.mark.parametrize(
    "rule",
    [
        {"Name": ""},
        {"Name": "a b", "TlsPolicy": "x"},
        {"Name": "x" * 65},
        {"Name": "x", "Recipients": ["a@b@c"]},
        {"Name": "x", "Recipients": [f"u{number}@example.com" for number in range(501)]},
        {
            "Name": "x",
            "Actions": [{"S3Action": {"BucketName": "b"}, "StopAction": {"Scope": "RuleSet"}}],
        },
        {"Name": "x", "Actions": [{"S3Action": {"BucketName": "unknown"}}]},
        {"Name": "x", "Actions": [{"SNSAction": {"TopicArn": "t", "Encoding": "x"}}]},
        {"Name": "x", "Actions": [{"SNSAction": {"TopicArn": "t"}}]},
        {"Name": "x", "Actions": [{"WorkmailAction": {"OrganizationArn": "x" * 2049}}]},
        {"Name": "x", "Actions": [{"ConnectAction": {"InstanceARN": "i", "IAMRoleARN": "r"}}]},
        {"Name": "x", "Actions": [{"LambdaAction": {"FunctionArn": ""}}]},
        {"Name": "x", "Actions": [{"AddHeaderAction": {"HeaderName": "X", "HeaderValue": "\r\n"}}]},
        {"Name": "x", "Actions": [{"BounceAction": {"Sender": "", "Message": ""}}]},
    ],
)
def test_the_api_refuses_the_same_rule_with_the_same_text(server, rule):
    client = server.ses_client(parameter_validation=False)
    client.create_receipt_rule_set(RuleSetName="a")
    with pytest.raises(client.exceptions.ClientError) as refused:
        client.create_receipt_rule(RuleSetName="a", Rule=rule)
    with pytest.raises(SetupError) as error:
        apply_rule(server, rule)
    text = refused.value.response["Error"]["Message"]
    assert str(error.value) == f"rule_sets.a.rules[1]: {text}"


def apply_rule(server, rule):
    setup = parse_setup({"rule_sets": {"a": {"rules": [rule]}}}, Path("/"))
    server.run(server.app.setup.apply(ACCOUNT, setup, prune=False))


def test_no_more_rules_are_applied_than_the_api_creates(place):
    rules = "".join(f'[[rule_sets.a.rules]]\nName = "r{number}"\n' for number in range(201))
    with pytest.raises(SetupError, match=r"rule_sets\.a\.rules\[201\]: Too many rules"):
        place.apply(rules)
    place.apply("".join(f"[rule_sets.s{number}]\n" for number in range(40)))
    with pytest.raises(SetupError, match="Too many rule sets"):
        place.apply("[rule_sets.more]\n")
    assert "rule set more is created" in place.apply("[rule_sets.more]\n", prune=True).changes


def test_no_more_filters_are_applied_than_the_api_creates(place):
    filters = [
        f'[[filters]]\nName = "f{number}"\nPolicy = "Block"\nCidr = "10.0.0.1"\n'
        for number in range(101)
    ]
    with pytest.raises(SetupError, match=r"filters\[101\]: Too many filters"):
        place.apply("".join(filters))
    place.apply("".join(filters[:100]))
    with pytest.raises(SetupError, match="Too many filters"):
        place.apply(filters[100])


def test_targets_that_do_not_exist_are_warnings_without_check_targets(make_place):
    place = make_place(check_targets="false")
    function = action("LambdaAction", FunctionArn=CHECK)
    applied = place.apply(
        f'functions = {{ "{CHECK}" = "python:none.py:f" }}\n{function}\n'
        '[[rule_sets.a.rules]]\nName = "y"\nActions = [ { S3Action = { BucketName = "mail" } } ]'
    )
    assert applied.warnings == (
        f"functions.{CHECK}: there is no file {place.folder}/none.py",
        "rule y of a: nothing is known about the bucket mail",
    )


def test_targets_of_an_earlier_setup_are_known_unless_they_are_pruned(place):
    place.apply('[buckets]\nmail = "directory:mail"')
    rule = action("S3Action", BucketName="mail")
    with pytest.raises(SetupError, match="No such bucket: mail"):
        place.apply(rule, prune=True)
    assert place.apply(rule).changes == ("rule set a is created",)


def test_only_the_active_rule_set_that_may_be_deleted_is(place):
    place.apply('active_rule_set = "a"\n[rule_sets.a]')
    empty = 'active_rule_set = "b"\n[rule_sets.b]'
    for names in ((), ("b",)):
        with pytest.raises(ActiveDeletionError) as caught:
            place.apply(empty, prune=True, may_delete=frozenset(names))
        assert caught.value.deletion == ActiveDeletion("a", "b")
    applied = place.apply(empty, prune=True, may_delete=frozenset({"a"}))
    assert applied.changes == (
        "rule set b is created", "rule set a is deleted", "rule set b is active",
    )  # fmt: skip
    assert applied.deletion == ActiveDeletion("a", "b")
