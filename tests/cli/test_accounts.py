"""`sendback accounts`, `users`, `keys`, `policies`, `identities`, on a running server."""

import json
import os
import subprocess
import sys

import pytest

from tests.partners.clients import send_mail, ses
from tests.partners.console import ConsoleClient
from tests.partners.dns_server import DnsServer
from tests.partners.postgresql import environment_of
from tests.partners.sendback import Sendback, run_cli

OWNER, OTHER = "000000000000", "111111111111"
ALLOW = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "Bounces",
            "Effect": "Allow",
            "Principal": {"AWS": OTHER},
            "Action": "ses:SendBounce",
            "Resource": f"arn:aws:ses:us-east-1:{OWNER}:identity/example.com",
            "Condition": {
                "StringEquals": {"ses:FromAddress": "bounce@example.com"},
                "DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"},
            },
        }
    ],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Sendback(tmp_path_factory.mktemp("accounts")) as running:
        running.run("accounts", "create", "--id", OTHER, "--name", "Other Ltd")
        running.run("identities", "verify", "example.com")
        yield running


def put(server, *arguments, document=ALLOW):
    file = server.folder / "policy.json"
    file.write_text(json.dumps(document))
    return server.run("policies", "put", "p", str(file), *arguments)


def test_accounts(server):
    made = server.json("accounts", "create", "--name", "New")
    assert len(made["account"]) == 12
    names = {row["account"]: row["name"] for row in server.json("accounts", "list")}
    assert names[OTHER] == "Other Ltd"
    assert names[made["account"]] == "New"
    done = server.run("accounts", "create", "--id", OTHER, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"sendback: there is an account {OTHER} already\n",
    )
    assert made["name"] == "New"
    unnamed = server.json("accounts", "create")
    assert unnamed["name"] is None
    names = {row["account"]: row["name"] for row in server.json("accounts", "list")}
    assert names[unnamed["account"]] is None
    done = server.run("accounts", "create", "--account", "222222222222", check=False)
    assert done.returncode == 2
    assert "--id names the new account" in done.stderr
    done = server.run("accounts", "create", "--id", "12", check=False)
    assert "'12' is not an account ID: 12 digits" in done.stderr


def test_users_and_their_keys(server):
    server.run("users", "create", "ann", "--account", OTHER)
    done = server.run("users", "create", "ann", "--account", OTHER, check=False)
    assert done.stderr == f"sendback: account {OTHER} has a user ann already\n"
    first, second = (
        server.json("keys", "create", "--user", "ann", "--account", OTHER) for _ in range(2)
    )
    assert first["secret_access_key"] != second["secret_access_key"]
    listed = server.json("keys", "list", "--account", OTHER)
    assert [row["state"] for row in listed] == ["active", "active"]
    assert not any("secret" in name for row in listed for name in row)
    assert server.json("keys", "list") == []  # those of the first account
    name = first["access_key_id"]
    assert (
        server.run("keys", "disable", name, check=False).returncode == 1
    )  # a key of another account
    server.run("keys", "disable", name, "--account", OTHER)
    states = {row["access_key_id"]: row["state"] for row in server.json("keys", "list", "--all")}
    assert states[name] == "disabled"
    server.run("keys", "enable", name, "--account", OTHER)
    client = ses(server.endpoint, key=name, secret=first["secret_access_key"])
    assert client.list_identities()["Identities"] == []
    server.run("users", "delete", "ann", "--account", OTHER)
    assert server.json("keys", "list", "--account", OTHER) == []


@pytest.mark.parametrize("command", ["create", "temporary"])
def test_keys_are_of_existing_users(server, command):
    done = server.run("keys", command, "--user", "nobody", "--account", OTHER, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "sendback: the account has no user nobody: create it with `sendback users create nobody`\n",
    )
    assert "nobody" not in [row["user"] for row in server.json("users", "list", "--account", OTHER)]
    done = server.run("keys", "temporary", "--account", "222222222222", check=False)
    assert "`sendback accounts create --id 222222222222`" in done.stderr


def test_a_user_of_the_first_account_before_a_server_has_run(tmp_path):
    place = Sendback(tmp_path).create()
    place.run("users", "create", "ann")
    made = place.json("keys", "create", "--user", "ann")
    assert (made["user"], made["session_token"], made["expires_at"]) == ("ann", None, None)
    assert "session token" not in place.run("keys", "create", "--user", "ann").stdout
    done = place.run("users", "create", "ann", "--account", OTHER, check=False)
    assert f"there is no account {OTHER}: create it with" in done.stderr


def test_temporary_keys(server):
    found = server.json("keys", "temporary", "--lasts", "15m", "--account", OTHER)
    client = ses(
        server.endpoint,
        key=found["access_key_id"],
        secret=found["secret_access_key"],
        token=found["session_token"],
    )
    assert client.list_identities()["Identities"] == []
    done = server.run("keys", "temporary", "--lasts", "5m", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "sendback: temporary credentials last from 15m to 36h\n",
    )
    assert server.run("keys", "temporary", "--lasts", "soon", check=False).returncode == 2


def test_policies_of_an_identity(server):
    put(server, "--identity", "example.com")
    (row,) = server.json("policies", "list", "--identity", "example.com")
    assert row == {"policy": "p", "document": ALLOW}
    shown = server.run("policies", "show", "p", "--identity", "example.com").stdout
    assert json.loads(shown) == ALLOW
    assert '\n  "Version"' in shown
    assert server.json("policies", "show", "p", "--identity", "example.com") == {
        "policy": "p",
        "identity": "example.com",
        "document": ALLOW,
    }
    assert server.run("policies", "show", "q", "--identity", "example.com", check=False).returncode
    server.run("policies", "delete", "p", "--identity", "example.com")
    assert server.json("policies", "list", "--identity", "example.com") == []


def test_invalid_policies_are_refused(server):
    file = server.folder / "bad.json"
    file.write_text("{}")
    done = server.run("policies", "put", "p", str(file), "--identity", "example.com", check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "sendback: InvalidPolicy: Statement is missing\n",
    )
    done = server.run("policies", "put", "p", str(file), check=False)
    assert done.returncode == 2
    assert "give one of --identity and --user" in done.stderr
    done = server.run("policies", "put", "p", "/no/such", "--user", "ann", check=False)
    assert done.returncode == 2


def test_a_call_is_simulated(server):
    put(server, "--identity", "example.com")
    simulate = ["policies", "simulate", "--account", OTHER, "--owner", OWNER]
    found = server.json(*simulate, "--from", "bounce@example.com")
    assert (found["decision"], found["because"]) == ("permitted", "p, Bounces: allows")
    assert found["caller"] == f"arn:aws:iam::{OTHER}:root"
    assert found["statements"] == [
        {"of": "identity example.com, p", "statement": "Bounces", "effect": "Allow", "fails": None}
    ]
    for more, fails in (
        (["--from", "x@example.com"], "Condition StringEquals ses:fromaddress"),
        (
            ["--from", "bounce@example.com", "--at", "2030-01-02T00:00:00Z"],
            "Condition DateLessThan aws:currenttime",
        ),
    ):
        done = server.run(*simulate, *more, "--json", check=False)
        assert done.returncode == 1
        simulated = json.loads(done.stdout)
        assert (simulated["decision"], simulated["because"]) == (
            "refused",
            "no statement allows it",
        )
        assert simulated["statements"][0]["fails"] == fails
    table = server.run(*simulate, "--from", "x@example.com", check=False).stdout
    assert "refused" in table
    assert "no: Condition StringEquals ses:fromaddress" in table
    assert server.json("policies", "simulate", "--from", "x@example.com")["because"] == (
        "the account owns the identity, and no policy restricts the user"
    )
    done = server.run(*simulate, "--from", "nobody", check=False)
    assert done.returncode == 2
    done = server.run(*simulate, "--from", "x@example.com", "--at", "soon", check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "sendback: 'soon' is not a date such as 2026-12-31T00:00:00Z\n",
    )
    done = server.run("policies", "simulate", "--from", "x@no.example", check=False)
    assert "has no verified identity that covers x@no.example" in done.stdout
    server.run("policies", "delete", "p", "--identity", "example.com")


def test_a_policy_of_a_user_restricts_its_calls(server):
    server.run("users", "create", "bob")
    issued = server.json("keys", "create", "--user", "bob")
    document = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": "ses:SendBounce",
            "Resource": "*",
            "Condition": {"StringEquals": {"ses:FromAddress": "${aws:username}@example.com"}},
        },
    }
    put(server, "--user", "bob", document=document)
    assert server.json("users", "list") == [
        {**server.json("users", "list")[0], "user": "bob", "policies": ["p"]}
    ]
    shown = server.json("policies", "show", "p", "--user", "bob")
    assert shown == {"policy": "p", "user": "bob", "document": document}
    assert server.json("policies", "simulate", "--user", "bob", "--from", "bob@example.com")
    done = server.run(
        "policies", "simulate", "--user", "bob", "--from", "x@example.com", check=False
    )
    assert done.returncode == 1
    client = ses(server.endpoint, key=issued["access_key_id"], secret=issued["secret_access_key"])
    message = send_mail(server.smtp_port)
    for sender, expected in (("bob", True), ("ann", False)):
        try:
            client.send_bounce(
                OriginalMessageId=message,
                BounceSender=f"{sender}@example.com",
                BouncedRecipientInfoList=[
                    {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
                ],
            )
            allowed = True
        except client.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDenied"
            allowed = False
        assert allowed is expected
    server.run("policies", "delete", "p", "--user", "bob")


def test_records_are_checked_and_dkim_keys_rotated(tmp_path):
    with DnsServer("") as dns:
        environment = {
            "SENDBACK_VERIFICATION": "proved",
            "SENDBACK_DNS": dns.address,
            "SENDBACK_HOSTNAME": "mx.example.com",
        }
        data_dir = ("--data-dir", str(tmp_path / "data"))
        run_cli("db", "create", *data_dir)

        def run(*arguments, check=True):
            return run_cli(
                "identities", *arguments, *data_dir, check=check, environment=environment
            )

        run("verify", "example.com", "--dkim")
        records = json.loads(run("records", "example.com", "--json").stdout)
        assert [record["for"] for record in records] == [
            "verification",
            "DKIM, active rsa key",
            "DKIM, standby rsa key",
            "DKIM, standby rsa key",
        ]
        done = run("check", "example.com", check=False)
        assert done.returncode == 1
        assert "there is no TXT record at _amazonses.example.com" in done.stdout
        for record in records:
            strings = record["value"]
            parts = [strings[at : at + 255] for at in range(0, len(strings), 255)]
            dns.put(record["name"], record["type"], " ".join(f'"{part}"' for part in parts))
        done = run("check", "example.com", "--json")
        assert {row["what"]: row["status"] for row in json.loads(done.stdout)} == {
            "domain": "Success",
            "dkim": "Success",
        }
        assert "not signed" in run("sign", "example.com", "--off").stdout
        keys = json.loads(run("rotate-dkim", "example.com", "--json").stdout)
        states = ["active", "retired", "standby", "standby"]
        assert sorted(key["state"] for key in keys) == states
        run("rotate-dkim", "example.com")  # the second standby key is published too
        done = run("rotate-dkim", "example.com", check=False)
        assert done.returncode == 1
        assert "the next key is not published yet" in done.stderr
        done = run("rotate-dkim", "other.example", check=False)
        assert "has no DKIM keys" in done.stderr
        assert run("records", "no.example", check=False).returncode == 1
        assert run("check", "no.example", check=False).returncode == 1


def test_the_secret_is_never_printed():
    secret = "5e" * 32
    done = run_cli("config", "show", "--json", environment={"SENDBACK_SECRET": secret})
    assert secret not in done.stdout
    assert '"(hidden)"' in done.stdout
    done = run_cli("config", "show", check=False, environment={"SENDBACK_SECRET": "my secret"})
    assert done.returncode == 2
    assert "my secret" not in done.stderr
    assert "64 hexadecimal digits" in done.stderr


def signs_in(server, password, user="ann"):
    client = ConsoleClient(server.endpoint)
    client.get("/console/login")
    fields = {"by": "password", "account": "", "user": user, "password": password}
    return client.post("/console/login", fields).path == "/console/mail"


def test_a_console_password(tmp_path):
    with Sendback(tmp_path, environment={"SENDBACK_DEVELOPMENT_KEY": "false"}) as server:
        server.run("users", "create", "ann")
        for user in ("ann", "root"):
            done = given(server, "a long password\n", "users", "password", user, "--stdin")
            assert done.stdout == f"The console password of {user} is set.\n"
            assert signs_in(server, "a long password", user)
        assert not signs_in(server, "another password")
        server.run("users", "password", "ann", "--remove")
        assert not signs_in(server, "a long password")
        done = server.run("users", "password", "ann", "--remove", check=False)
        assert (done.returncode, done.stderr) == (
            1,
            "sendback: the user ann has no console password\n",
        )
        done = given(server, "short\n", "users", "password", "ann", "--stdin")
        assert (done.returncode, done.stderr) == (
            1,
            "sendback: a console password has 12 to 200 characters\n",
        )
        done = given(server, "a long password\n", "users", "password", "bob", "--stdin")
        assert (done.returncode, done.stderr) == (1, f"sendback: account {OWNER} has no user bob\n")
        done = server.run("users", "password", "ann", "--remove", "--stdin", check=False)
        assert done.returncode == 2


def given(server, text, *arguments):
    """A command with a text on its standard input."""
    command = [sys.executable, "-m", "sendback", *arguments, "--data-dir", str(server.data_dir)]
    environment = {**os.environ, **environment_of(server.data_dir)}
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=60, env=environment
    )
