"""`sendback faults`, and the faults of setup files, beside a server that runs."""

import json
import smtplib

import pytest

from tests.partners.clients import send_mail
from tests.partners.sendback import Sendback, create_store, run_cli
from tests.partners.waiting import wait_for


@pytest.fixture
def cli(tmp_path):
    create_store(tmp_path / "data")

    def run(*arguments, code=0):
        done = run_cli(*arguments, "--data-dir", str(tmp_path / "data"), check=False)
        assert done.returncode == code, done.stderr
        return done

    return run


def listed(cli):
    return json.loads(cli("faults", "list", "--json").stdout)


def test_add_list_remove_clear(cli):
    added = cli("faults", "add", "rcpt", "--reply", "451 4.7.1 Later", "--first", "2")
    assert added.stdout == (
        "Fault fault-1 is added: at rcpt, all, first 2: reply 451 4.7.1 Later.\n"
    )
    cli("faults", "add", "api", "--name", "lose", "--operation", "SendBounce", "--lost")
    found = listed(cli)
    for fault in found:
        assert fault.pop("created_at")
    assert found == [
        {"at": "rcpt", "name": "fault-1", "first": 2, "reply": "451 4.7.1 Later",
         "matched": 0, "injected": 0},
        {"at": "api", "name": "lose", "operation": "SendBounce", "lost": True,
         "matched": 0, "injected": 0},
    ]  # fmt: skip
    assert "operation SendBounce" in cli("faults", "list").stdout
    cli("faults", "remove", "lose")
    assert "there is no fault lose" in cli("faults", "remove", "lose", code=1).stderr
    assert cli("faults", "clear").stdout == "Removed: 1.\n"
    assert cli("faults", "clear").stdout == "There were no faults.\n"


def test_what_cannot_be_added(cli):
    failed = cli("faults", "add", "api", "--reply", "550 5.1.1 No", code=2)
    assert "the effect reply can never apply at api" in failed.stderr
    cli("faults", "add", "rcpt", "--drop", "--name", "a")
    assert "fault a already" in cli("faults", "add", "rcpt", "--drop", "--name", "a", code=1).stderr


FILE = """
[[faults]]
name = "greylist"
at = "rcpt"
reply = "451 4.7.1 Later"
first = 2
"""


def test_a_setup_file(cli, tmp_path):
    file = tmp_path / "setup.toml"
    file.write_text(FILE)
    apply = ("rules", "apply", str(file))
    assert "Fault greylist is added." in cli(*apply, "--dry-run").stdout
    assert listed(cli) == []
    assert "Fault greylist is added." in cli(*apply).stdout
    assert "Nothing to change." in cli(*apply).stdout
    file.write_text(FILE.replace("first = 2", "first = 3"))
    assert "Fault greylist is replaced." in cli(*apply).stdout
    cli("faults", "add", "mail", "--drop")
    assert "Fault fault-1 is removed." in cli(*apply, "--prune").stdout
    assert [fault["name"] for fault in listed(cli)] == ["greylist"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("first = 2", "first = 0"), "faults[1]: first: 0 can never match"),
        (('name = "greylist"', ""), "faults[1]: a fault in a file must have a name"),
        (("", FILE), "faults[2]: there is a fault greylist already"),
    ],
)
def test_a_setup_file_that_cannot_be_applied(cli, tmp_path, change, reason):
    (tmp_path / "setup.toml").write_text(FILE.replace(*change, 1))
    assert reason in cli("rules", "apply", str(tmp_path / "setup.toml"), code=2).stderr
    assert listed(cli) == []


def refused(server):
    try:
        send_mail(server.smtp_port)
    except AssertionError:
        return True
    return False


def test_counters_survive_the_end_of_the_process_and_are_shared_by_workers(tmp_path):
    with Sendback(tmp_path, ("--workers", "2")) as server:
        server.run("identities", "verify", "example.com")
        wait_for(lambda: not refused(server))
        server.run("faults", "add", "rcpt", "--reply", "451 4.7.1 Later", "--from", "1")
        wait_for(lambda: refused(server))
        server.run("faults", "clear")
        server.run("faults", "add", "mail", "--reply", "451 4.7.1 Later", "--first", "3")
        wait_for(lambda: refused(server))
        before = json.loads(server.run("faults", "list", "--json").stdout)[0]
        server.kill()
        server.start()
        replies = []
        for _ in range(6):
            with smtplib.SMTP("127.0.0.1", server.smtp_port, local_hostname="x.test") as smtp:
                smtp.ehlo()
                replies.append(smtp.mail("a@b.example")[0])
        assert replies == [451] * (3 - before["injected"]) + [250] * (3 + before["injected"])
