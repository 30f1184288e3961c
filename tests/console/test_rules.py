"""Rule sets, rules, filters, targets and trying a mail, in the console."""

import tomllib

import pytest

from sendback.service.rules.setup_file import parse_setup

SETS = "/console/rules"
RULE = "/console/rules/sets/main/rule"
ACTION = "Rule.Actions.member"
TOPIC = "arn:aws:sns:us-east-1:000000000000:t"


@pytest.fixture
def rules(server, console):
    """The console of a server with an empty rule set that is active."""
    console.get(SETS)
    console.post(SETS, {"do": "create", "RuleSetName": "main"})
    console.post(SETS, {"do": "activate", "RuleSetName": "main"})
    return console


def add_rule(console, name, **members):
    fields = {
        "Rule.Name": name,
        "Rule.Enabled": "true",
        f"{ACTION}.1.StopAction.Scope": "RuleSet",
        **members,
    }
    return console.post(RULE, {**fields, "is_new": "true", "do": "save"})


def test_rule_sets(server, console):
    assert "No rule sets yet" in console.get(SETS).text
    assert (
        "Rule set main is created"
        in console.post(SETS, {"do": "create", "RuleSetName": "main"}).text
    )
    again = console.post(SETS, {"do": "create", "RuleSetName": "main"})
    assert again.status == 400
    assert "AlreadyExists" in again.text
    assert "No rule set is active" in again.text
    assert "main is active" in console.post(SETS, {"do": "activate", "RuleSetName": "main"}).text
    refused = console.post(SETS, {"do": "delete", "RuleSetName": "main"})
    assert "CannotDelete" in refused.text
    copied = console.post(
        SETS, {"do": "clone", "RuleSetName": "two", "OriginalRuleSetName": "main"}
    )
    assert "created as a copy" in copied.text
    assert "No rule set is active" in console.post(SETS, {"do": "deactivate"}).text
    assert "main is deleted" in console.post(SETS, {"do": "delete", "RuleSetName": "main"}).text
    assert console.post(SETS, {"do": "explode"}).status == 400
    assert console.get("/console/rules/sets/nothing").status == 400


def test_a_rule_is_written_as_by_the_api(server, rules):
    page = rules.get(RULE)
    fields = page.form(RULE) | {"Rule.Name": "first", "Rule.Recipients.member.1": "example.com"}
    more = rules.post(RULE, {**fields, "kind": "AddHeaderAction", "do": f"add {ACTION}.1"})
    fields = more.form(RULE)
    assert f"{ACTION}.1.AddHeaderAction.HeaderValue" in fields
    fields |= {
        f"{ACTION}.1.AddHeaderAction.HeaderName": "X-A",
        f"{ACTION}.1.AddHeaderAction.HeaderValue": "b c",
    }
    more = rules.post(RULE, {**fields, "kind": "BounceAction", "do": f"add {ACTION}.2"})
    fields = more.form(RULE) | {
        f"{ACTION}.2.BounceAction.SmtpReplyCode": "550",
        f"{ACTION}.2.BounceAction.Message": "no",
        f"{ACTION}.2.BounceAction.Sender": "mailer-daemon@example.com",
    }
    moved = rules.post(RULE, {**fields, "do": f"raise {ACTION}.2"})
    fields = moved.form(RULE)
    assert f"{ACTION}.1.BounceAction.SmtpReplyCode" in fields
    saved = rules.post(RULE, {**fields, "do": "save"})
    assert "Rule first of main is created" in saved.text
    assert "Bounce no, then AddHeader X-A" in saved.text
    found = server.ses.describe_receipt_rule(RuleSetName="main", RuleName="first")["Rule"]
    assert found["Recipients"] == ["example.com"]
    assert [next(iter(action)) for action in found["Actions"]] == [
        "BounceAction",
        "AddHeaderAction",
    ]
    edited = rules.get(f"{RULE}?rule=first")
    fields = edited.form(RULE)
    assert fields[f"{ACTION}.2.AddHeaderAction.HeaderValue"] == "b c"
    assert "aws ses update-receipt-rule" in edited.text
    less = rules.post(RULE, {**fields, "do": f"drop {ACTION}.1"})
    fields = less.form(RULE)
    fields.pop("Rule.Enabled")
    assert "Rule first of main is changed" in rules.post(RULE, {**fields, "do": "save"}).text
    found = server.ses.describe_receipt_rule(RuleSetName="main", RuleName="first")["Rule"]
    assert not found["Enabled"]
    assert len(found["Actions"]) == 1


@pytest.mark.parametrize(
    ("members", "field", "text"),
    [
        ({"Rule.Name": "no name!"}, "Rule.Name", ""),
        ({"Rule.Recipients.member.1": "@@"}, "Rule.Recipients.member.1", ""),
        (
            {f"{ACTION}.1.S3Action.BucketName": "nothing"},
            "",
            "bucket: nothing",
        ),
        ({f"{ACTION}.1.BounceAction.Sender": "x"}, "", ""),
    ],
)
def test_errors_of_a_rule(server, rules, members, field, text):
    if any("Actions" in name for name in members):
        members |= {f"{ACTION}.1.StopAction.Scope": ""}
    page = add_rule(rules, "bad", **members)
    assert page.status == 400
    assert text in page.text
    if field:
        tag = next(part for part in page.html.split("<") if f'name="{field}"' in part)
        assert 'aria-invalid="true"' in tag


def test_rules_are_ordered(server, rules):
    for name in ("a", "b", "c"):
        names = [
            r["Name"] for r in server.ses.describe_receipt_rule_set(RuleSetName="main")["Rules"]
        ]
        add_rule(rules, name, **({"After": names[-1]} if names else {}))
    path = "/console/rules/sets/main"
    for change in (
        {"do": "up", "RuleName": "c"},
        {"do": "down", "RuleName": "a"},
        {"do": "order", "order": "b\nc\na"},
    ):
        assert "another order" in rules.post(path, change).text
    order = [r["Name"] for r in server.ses.describe_receipt_rule_set(RuleSetName="main")["Rules"]]
    assert order == ["b", "c", "a"]
    assert rules.post(path, {"do": "order", "order": "b"}).status == 400
    assert "Rule b of main is deleted" in rules.post(path, {"do": "delete", "RuleName": "b"}).text


def test_filters(server, console):
    path = "/console/rules/filters"
    console.get(path)
    fields = {
        "Filter.Name": "bad",
        "Filter.IpFilter.Policy": "Block",
        "Filter.IpFilter.Cidr": "192.0.2.0/24",
    }
    assert "Filter bad is created" in console.post(path, {**fields, "do": "create"}).text
    wrong = console.post(path, {**fields, "Filter.IpFilter.Cidr": "x", "do": "create"})
    assert wrong.status == 400
    assert server.ses.list_receipt_filters()["Filters"][0]["Name"] == "bad"
    assert "deleted" in console.post(path, {"do": "delete", "FilterName": "bad"}).text


def test_targets(server, console, tmp_path):
    path = "/console/rules/targets"
    console.get(path)
    fields = {"kind": "bucket", "name": "mail", "target": f"directory:{tmp_path}", "do": "put"}
    assert "is changed" in console.post(path, fields).text
    tested = console.post(path, {**fields, "do": "test"})
    assert "Test of mail" in tested.text
    assert (tmp_path / "sendback-console-test").exists()
    assert console.post(path, {**fields, "target": "nonsense"}).status == 400
    assert console.post(path, {**fields, "kind": "planet"}).status == 400
    missing = console.post(path, {"kind": "topic", "name": TOPIC, "do": "test"})
    assert "nothing is known about the topic" in missing.text
    assert "is removed" in console.post(path, {**fields, "do": "delete"}).text


def test_the_export_can_be_applied(server, rules):
    add_rule(rules, "first", **{"Rule.Recipients.member.1": "bob@example.com"})
    add_rule(
        rules,
        "se.cond",
        **{
            f"{ACTION}.1.StopAction.Scope": "",
            f"{ACTION}.1.AddHeaderAction.HeaderName": "X-A",
            f"{ACTION}.1.AddHeaderAction.HeaderValue": 'say "hé\\"',
        },
    )
    text = rules.get("/console/rules/export?download=1").html
    setup = parse_setup(tomllib.loads(text), server.settings.data_dir)
    assert setup.active_rule_set == "main"
    assert setup.identities == ("example.com",)
    before = server.ses.describe_receipt_rule_set(RuleSetName="main")["Rules"]
    server.set_up(text)
    assert server.ses.describe_receipt_rule_set(RuleSetName="main")["Rules"] == before


def test_a_mail_is_tried(server, rules):
    path = "/console/rules/try"
    for name, members in (
        ("off", {"Rule.Enabled": ""}),
        ("other", {"Rule.Recipients.member.1": "x.example.com"}),
        ("stop", {}),
        ("late", {}),
    ):
        names = [
            r["Name"] for r in server.ses.describe_receipt_rule_set(RuleSetName="main")["Rules"]
        ]
        add_rule(rules, name, **members, **({"After": names[-1]} if names else {}))
    page = rules.post(path, rules.get(path).form(path))
    for text in ("off left out it is not enabled", "other left out no recipient matches",
                 "stop runs", "late left out rule stop stops the rule set"):  # fmt: skip
        assert text in page.text
    fields = page.form(path)
    assert "no verified identity" in rules.post(path, {**fields, "recipients": "a@b.example"}).text
    assert rules.post(path, {**fields, "recipients": ""}).status == 400
    assert rules.post(path, {**fields, "recipients": "@"}).status == 400
    message_id = server.send_mail()
    assert "What would happen" in rules.get(f"{path}?message={message_id}").text
    assert rules.get(f"{path}?message={'0' * 40}").status == 404


def test_a_file_is_tried(server, rules):
    add_rule(rules, "stop")
    path = "/console/rules/try"
    rules.get(path)
    fields = {"csrf": rules.token, "sender": "ann@sender.example", "recipients": "bob@example.com"}
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}' for n, v in fields.items()
    ]
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.eml"'
    parts.append(f"{head}\r\n\r\nSubject: é\r\n\r\nx")
    body = "\r\n".join([*parts, "--x--", ""])
    page = rules.raw(
        "POST",
        path,
        body.encode().decode("latin-1"),
        {"Content-Type": "multipart/form-data; boundary=x", "Sec-Fetch-Site": "same-origin"},
    )
    assert page.status == 200
    assert "stop runs" in page.text
