"""`sendback rules`: apply, list, show, activate, test."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.partners.clients import MAIL
from tests.partners.sendback import create_store, run_cli

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path):
    """A folder with the setup of docs/receiving.md, and a mail."""
    text = re.search(r"```toml\n(.*?)```", (ROOT / "docs/receiving.md").read_text(), re.DOTALL)[1]
    (tmp_path / "setup.toml").write_text(text)
    (tmp_path / "check.py").write_text("def handler(event, context):\n    return None\n")
    (tmp_path / "count.mjs").write_text("export const handler = async () => null\n")
    (tmp_path / "mail.eml").write_bytes(MAIL.replace(b"\r\n", b"\n"))
    return tmp_path


@pytest.fixture
def cli(project):
    create_store(project / "data")

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
    assert (listed["name"], listed["active"], listed["rules"]) == ("main", True, 2)
    shown = json.loads(cli("rules", "show", "--json"))
    assert (shown["name"], shown["active"]) == ("main", True)
    assert [rule["name"] for rule in shown["rules"]] == ["no-such-people", "everything-else"]
    assert shown["rules"][0] == {
        "name": "no-such-people",
        "enabled": True,
        "tls_policy": "Optional",
        "recipients": ["old.example.com", "bob@example.com", ".test.example.com"],
        "actions": [
            {
                "type": "Bounce",
                "smtp_reply_code": "550",
                "message": "Mailbox does not exist",
                "sender": "mailer-daemon@example.com",
                "status_code": "5.1.1",
                "topic_arn": None,
            },
            {"type": "Stop", "topic_arn": None},
        ],
        "scan_enabled": False,
    }
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
    assert rehearsed["verdicts"] == {
        "spam_verdict": "DISABLED",
        "virus_verdict": "DISABLED",
        "spf_verdict": "DISABLED",
        "dkim_verdict": "DISABLED",
        "dmarc_verdict": "DISABLED",
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
        ('active_rule_set = "x"', "active_rule_set: Rule set does not exist: x"),
        ("[[rule_sets.a.rules]]", "rule_sets.a.rules[1]: 2 validation errors detected: Value at"),
        ('[functions]\nx = "python:no.py:f"', "functions.x: there is no file {project}/no.py"),
        ('[[filters]]\nName = "x"\nPolicy = "Block"\nCidr = "y"', "Invalid CIDR block: y"),
    ],
)
def test_an_invalid_setup_changes_nothing(cli, project, text, reason):
    """tests/service/test_setup.py has all the reasons."""
    file = project / "wrong.toml"
    file.write_text(f'identities = ["example.org"]\n{text}')
    reason = reason.replace("{project}", str(project))
    assert reason in cli("rules", "apply", str(file), code=2)
    assert json.loads(cli("identities", "list", "--json")) == []
    assert json.loads(cli("rules", "list", "--json")) == []


def test_a_missing_target_is_a_warning_without_check_targets(project):
    run_cli("db", "create", "--data-dir", str(project / "data"))
    file = project / "unchecked.toml"
    file.write_text('[functions]\nx = "python:no.py:f"\n')
    done = run_cli(
        "rules", "apply", str(file), "--data-dir", str(project / "data"),
        environment={"SENDBACK_CHECK_TARGETS": "false"},
    )  # fmt: skip
    assert done.stderr == f"Warning: functions.x: there is no file {project}/no.py.\n"


def test_a_dry_run_changes_nothing(cli, project):
    setup = str(project / "setup.toml")
    expected = cli("rules", "apply", setup, "--dry-run")
    assert json.loads(cli("rules", "list", "--json")) == []
    assert "Rule set main is created." in expected
    new = ("--database", f"sqlite:///{project}/new.db")
    assert "there is no database in" in cli("rules", "apply", setup, *new, code=1)
    assert not (project / "new.db").exists()
    dry = json.loads(cli("rules", "apply", setup, "--dry-run", "--json"))
    assert (dry["applied"], dry["warnings"]) == (False, [])
    done = json.loads(cli("rules", "apply", setup, "--json"))
    assert done == {**dry, "applied": True}
    (project / "other.toml").write_text("[rule_sets.other]\n")
    other = str(project / "other.toml")
    pruned = json.loads(cli("rules", "apply", other, "--dry-run", "--prune", "--json"))
    assert "rule set main is deleted" in pruned["changes"]
    assert pruned["warnings"] == [
        "rule set main is active; mail would be received without being processed by any rule"
    ]
    assert [row["name"] for row in json.loads(cli("rules", "list", "--json"))] == ["main"]
    (project / "wrong.toml").write_text('active_rule_set = "none"')
    wrong = cli("rules", "apply", str(project / "wrong.toml"), "--dry-run", code=2)
    assert "Rule set does not exist: none" in wrong


def test_prune_deletes_what_the_file_does_not_name(cli, project):
    cli("rules", "apply", str(project / "setup.toml"))
    file = project / "less.toml"
    file.write_text('[[rule_sets.other.rules]]\nName = "x"\n')
    refused = cli("rules", "apply", str(file), "--prune", code=2)
    assert "rule set main is active; mail would be received without" in refused
    assert "give --yes" in refused
    assert [row["name"] for row in json.loads(cli("rules", "list", "--json"))] == ["main"]
    pruned = cli("rules", "apply", str(file), "--prune", "--yes")
    assert "Rule set main is deleted." in pruned
    assert "Filters are changed." in pruned
    assert [row["name"] for row in json.loads(cli("rules", "list", "--json"))] == ["other"]


def test_prune_asks_nothing_while_the_active_rule_set_stays(cli, project):
    setup = project / "setup.toml"
    cli("rules", "apply", str(setup))
    (project / "empty.toml").write_text("[rule_sets.other]\n")
    cli("rules", "apply", str(project / "empty.toml"))
    assert "Rule set other is deleted." in cli("rules", "apply", str(setup), "--prune")


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, "other"), ("n", 1, "main")])
def test_prune_asks_on_a_terminal(cli, project, answer, code, left):
    cli("rules", "apply", str(project / "setup.toml"))
    file = project / "other.toml"
    file.write_text('active_rule_set = "other"\n[rule_sets.other]\n')
    reader, terminal = pty.openpty()
    os.write(reader, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "sendback", "rules", "apply", str(file), "--prune",
         "--data-dir", str(project / "data")],
        stdin=terminal, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    os.close(reader)
    os.close(terminal)
    question = "rule set main is active; mail would be processed by rule set other instead"
    assert f"{question}; delete it? [y/N]" in done.stderr
    assert done.returncode == code, done.stderr
    assert [row["name"] for row in json.loads(cli("rules", "list", "--json"))] == [left]


def test_ctrl_c_ends_the_question(cli, project):
    cli("rules", "apply", str(project / "setup.toml"))
    file = project / "other.toml"
    file.write_text('active_rule_set = "other"\n[rule_sets.other]\n')
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sendback", "rules", "apply", str(file), "--prune",
         "--data-dir", str(project / "data")],
        stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    asked = b""
    while b"[y/N]" not in asked:
        asked += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    os.close(reader)
    os.close(terminal)
    assert process.returncode == 130
    assert [row["name"] for row in json.loads(cli("rules", "list", "--json"))] == ["main"]


def test_passwords_of_targets_are_not_shown(cli, project):
    topic = "arn:aws:sns:us-east-1:000000000000:t"
    function = "arn:aws:lambda:us-east-1:000000000000:function:f"
    file = project / "targets.toml"
    file.write_text(
        f"""
        identities = ["example.com"]
        active_rule_set = "main"
        topics = {{ "{topic}" = "http://sns:s3cret@127.0.0.1:9/hook" }}
        functions = {{ "{function}" = "http://ann:s3cret@127.0.0.1:9/f" }}
        [[rule_sets.main.rules]]
        Name = "all"
        Actions = [
          {{ SNSAction = {{ TopicArn = "{topic}" }} }},
          {{ LambdaAction = {{ FunctionArn = "{function}" }} }},
        ]
        """
    )
    applied = cli("rules", "apply", str(file))
    mail = str(project / "mail.eml")
    found = cli("rules", "test", mail, "--from", "ann@sender.example", "--to", "bob@example.com")
    assert f"publishes the mail to {topic}, at http://***@127.0.0.1:9/hook" in found
    assert "at http://***@127.0.0.1:9/f" in found
    assert "s3cret" not in applied + found
    file.write_text(file.read_text().replace("http://sns", "ftp://sns"))
    assert "s3cret" not in cli("rules", "apply", str(file), code=2)


def test_a_dry_run_has_a_text_for_each_action(cli, project):
    """With `check_targets` false, as the targets do not exist."""
    from sendback.receipt.model import ACTION_TYPES

    account = "us-east-1:000000000000"
    sender, role = "a@example.com", "arn:aws:iam::000000000000:role/connect"
    organization = f"arn:aws:workmail:{account}:organization/m"
    instance = f"arn:aws:connect:{account}:instance/12345678-1234-1234-1234-123456789abc"
    (project / "all.toml").write_text(
        f"""
        identities = ["example.com"]
        active_rule_set = "main"
        [[rule_sets.main.rules]]
        Name = "all"
        Actions = [
          {{ AddHeaderAction = {{ HeaderName = "X-A", HeaderValue = "b" }} }},
          {{ S3Action = {{ BucketName = "mails" }} }},
          {{ SNSAction = {{ TopicArn = "arn:aws:sns:{account}:t" }} }},
          {{ LambdaAction = {{ FunctionArn = "arn:aws:lambda:{account}:function:f" }} }},
          {{ BounceAction = {{ SmtpReplyCode = "550", Message = "no", Sender = "{sender}" }} }},
          {{ WorkmailAction = {{ OrganizationArn = "{organization}" }} }},
          {{ ConnectAction = {{ InstanceARN = "{instance}", IAMRoleARN = "{role}" }} }},
          {{ StopAction = {{ Scope = "RuleSet" }} }},
        ]
        """
    )
    environment = {"SENDBACK_CHECK_TARGETS": "false", "SENDBACK_DNS": "off"}
    place = ("--data-dir", str(project / "data"))
    run_cli("rules", "apply", str(project / "all.toml"), *place, environment=environment)
    mail = str(project / "mail.eml")
    found = json.loads(
        cli("rules", "test", mail, "--from", "a@x.example", "--to", "b@example.com", "--json")
    )
    assert {step["action"] for step in found["steps"]} == set(ACTION_TYPES.values())
    assert all(step["what"] for step in found["steps"])
