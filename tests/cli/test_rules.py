"""`sendback rules`: apply, list, show, activate, test."""

import json
import re
from pathlib import Path

import pytest

from tests.partners.clients import MAIL
from tests.partners.sendback import run_cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path):
    """A folder with the setup of docs/receiving.md, and a mail."""
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs/receiving.md").read_text(), re.DOTALL)[1]
    (tmp_path / "setup.toml").write_text(text)
    (tmp_path / "mail.eml").write_bytes(MAIL.replace(b"\r\n", b"\n"))
    return tmp_path


@pytest.fixture
def cli(project):
    run_cli("db", "create", "--data-dir", str(project / "data"))

    def run(*arguments, code=0):
        done = run_cli(
            *arguments,
            "--data-dir",
            str(project / "data"),
            check=False,
            environment={"SENDBACK_DNS": "off"},
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_a_setup_is_applied_from_a_file(cli, project):
    first = cli("rules", "apply", str(project / "setup.toml"))
    assert "Identity example.com is Success." in first
    assert "Rule set main is created." in first
    assert "Rule set main is active." in first
    assert cli("rules", "apply", str(project / "setup.toml")) == "Nothing to change.\n"
    (listed,) = json.loads(cli("rules", "list", "--json"))
    assert (listed["name"], listed["active"], listed["rules"]) == ("main", "yes", 2)
    shown = json.loads(cli("rules", "show", "--json"))
    assert [rule["Name"] for rule in shown["Rules"]] == ["no-such-people", "everything-else"]
    assert shown["Rules"][0]["Enabled"] is True
    table = cli("rules", "show", "main")
    assert "AddHeader, S3, SNS, Lambda, Lambda" in table


def test_rule_sets_are_activated_and_deactivated(cli, project):
    cli("rules", "apply", str(project / "setup.toml"))
    assert cli("rules", "activate", "--none") == "No rule set is active.\n"
    assert "no rule set is active" in cli("rules", "show", code=1)
    assert cli("rules", "activate", "main") == "Rule set main is active.\n"
    assert "Rule set does not exist: other" in cli("rules", "activate", "other", code=1)
    assert "--none" in cli("rules", "activate", code=2)


def test_a_rehearsal_prints_the_steps_and_changes_nothing(cli, project):
    cli("rules", "apply", str(project / "setup.toml"))
    arguments = ("rules", "test", str(project / "mail.eml"), "--from", "ann@sender.example")
    rehearsed = json.loads(
        cli(*arguments, "--to", "bob@example.com", "--to", "eve@example.com", "--json")
    )
    assert rehearsed["recipients"] == {
        "bob@example.com": "250 2.1.5 accepted",
        "eve@example.com": "250 2.1.5 accepted",
    }
    assert [(step["rule"], step["action"]) for step in rehearsed["steps"]] == [
        ("no-such-people", "Bounce"),
        ("no-such-people", "Stop"),
    ]
    assert rehearsed["steps"][0]["what"] == (
        "bounces to ann@sender.example from mailer-daemon@example.com: "
        "550 5.1.1 Mailbox does not exist"
    )
    other = cli(*arguments, "--to", "eve@example.com", "--to", "x@elsewhere.example")
    assert "550 5.1.1 no verified identity covers it" in other
    assert f"stores in/MESSAGE-ID in mail, at directory:{project}/mail" in other
    assert "calls arn:aws:lambda:us-east-1:000000000000:function:check (RequestResponse)" in other
    blocked = cli(*arguments, "--to", "eve@example.com", "--ip", "192.0.2.1")
    assert "554 5.7.1 an IP filter blocks the client" in blocked
    assert "none" not in cli(*arguments[:-1], "", "--to", "bob@example.com")
    assert not (project / "mail").exists()
    assert json.loads(cli("outbox", "list", "--json")) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "is no TOML file"),
        ("rule_set = 1", "rule_set is none of"),
        ("identities = 1", "identities must be a list"),
        ('active_rule_set = "x"', "there is no rule set x"),
        ("[rule_sets.a]\nrule = 1", "rule_sets.a must hold"),
        ("[[rule_sets.a.rules]]\nEnabled = true", "rule_sets.a.rules[1].Name is missing"),
        ('[[rule_sets.a.rules]]\nName = "x"\nEnabld = true', "Enabld is none of"),
        ('[[rule_sets.a.rules]]\nName = "x"\nEnabled = 1', "Enabled must be a boolean"),
        ('[[rule_sets.a.rules]]\nName = "x"\nTlsPolicy = "No"', "must be one of Require, Optional"),
        ('[[rule_sets.a.rules]]\nName = "-x"', "Not a valid ruleName: -x"),
        ('[[rule_sets.a.rules]]\nName = "x"\n[[rule_sets.a.rules]]\nName = "x"', "two rules x"),
        (
            '[[rule_sets.a.rules]]\nName = "x"\nActions = [ { S3Action = {} } ]',
            "rule_sets.a.rules[1].Actions[1].S3Action.BucketName is missing",
        ),
        (
            '[[rule_sets.a.rules]]\nName = "x"\nActions = [ { BounceAction = { SmtpReplyCode = '
            '"550", Message = "No", Sender = "a@b.example" } } ]',
            "Identity is not verified: a@b.example",
        ),
        ('[[filters]]\nName = "x"\nPolicy = "Block"\nCidr = "y"', "Invalid CIDR block: y"),
        ('[[filters]]\nName = "x"', "must hold Name, Policy and Cidr"),
        ('[buckets]\nx = "y"', "'y' is no target"),
    ],
)
def test_an_invalid_setup_changes_nothing(cli, project, text, reason):
    file = project / "wrong.toml"
    file.write_text(text if "identities" in text else f'identities = ["example.org"]\n{text}')
    assert reason in cli("rules", "apply", str(file), code=2)
    if (project / "data").exists():
        assert json.loads(cli("identities", "list", "--json")) == []


def test_a_missing_target_is_a_warning(cli, project):
    file = project / "setup.toml"
    file.write_text(
        '[[rule_sets.a.rules]]\nName = "x"\nActions = [ { S3Action = { BucketName = "mail" } } ]'
    )
    done = run_cli("rules", "apply", str(file), "--data-dir", str(project / "data"))
    assert "Warning: rule x of a: nothing is known about the bucket mail." in done.stderr


def test_prune_deletes_what_the_file_does_not_name(cli, project):
    cli("rules", "apply", str(project / "setup.toml"))
    file = project / "less.toml"
    file.write_text('[[rule_sets.other.rules]]\nName = "x"\n')
    pruned = cli("rules", "apply", str(file), "--prune")
    assert "Rule set main is deleted." in pruned
    assert "Filters are changed." in pruned
    assert [row["name"] for row in json.loads(cli("rules", "list", "--json"))] == ["other"]
