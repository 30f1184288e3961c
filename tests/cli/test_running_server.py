"""Commands beside a server that runs: its settings, its store, its address."""

import json
import stat

import pytest

from tests.partners.clients import send_mail, ses
from tests.partners.sendback import Sendback, run_cli

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture
def server(tmp_path):
    """A server whose identities must be proved; commands are run without its environment."""
    environment = {
        "SENDBACK_VERIFICATION": "auto",
        "SENDBACK_OUTBOUND": "smtp://relay:pass-word@127.0.0.1:9",
        "SENDBACK_DNS": "off",
    }
    with Sendback(tmp_path, environment=environment) as running:
        yield running


def test_an_identity_is_verified_as_the_server_verifies_it(server):
    found = server.run("identities", "verify", "example.com", "--json", check=False)
    assert json.loads(found.stdout)["status"] == "Pending"
    assert found.stderr == ""


@pytest.mark.sqlite("it deletes the database, for another secret")
def test_the_file_has_no_secret_and_is_private(server):
    server.stop()
    server.environment["SENDBACK_SECRET"] = "ab" * 32
    (server.data_dir / "sendback.db").unlink()
    server.start()
    file = server.data_dir / "server.json"
    text = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "pass-word" not in text
    assert "abab" not in text
    assert json.loads(text)["http"] == f"127.0.0.1:{server.http_port}"
    assert json.loads(text)["settings"]["outbound"] == "smtp://127.0.0.1:9"
    server.stop()
    assert not file.exists()


def test_what_is_given_to_the_command_wins(server):
    environment = {"SENDBACK_VERIFICATION": "at_once"}
    done = run_cli(
        "identities", "verify", "example.com", "--json", "--data-dir", str(server.data_dir),
        environment=environment,
    )  # fmt: skip
    assert json.loads(done.stdout)["status"] == "Success"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_without_a_server_the_command_says_whose_settings_are_used(server, end):
    getattr(server, end)()
    verify = ("identities", "verify", "example.com", "--data-dir", str(server.data_dir))
    done = run_cli(*verify)
    assert done.stderr == (
        f"Note: no server runs on {server.data_dir}. The settings of this command are used: "
        "outbound capture.\n"
    )
    done = run_cli(*verify, environment={"SENDBACK_OUTBOUND": "mx"})
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command",
    [
        ("messages", "list"),
        ("outbox", "summary"),
        ("identities", "verify", "example.com"),
        ("rules", "list"),
        ("accounts", "create"),
        ("keys", "create"),
        ("policies", "list", "--user", "root"),
    ],
)
def test_no_command_makes_a_store(tmp_path, command):
    for folder, text in ((tmp_path / "none", "no data directory"), (tmp_path, "no database in")):
        done = run_cli(*command, "--data-dir", str(folder), check=False)
        assert done.returncode == 1
        assert f"there is {text} {folder}: start `sendback serve`, or name another" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_needs_no_store_and_makes_none(tmp_path):
    environment = {"SENDBACK_DATA_DIR": str(tmp_path / "none"), "SENDBACK_DNS": "127.0.0.1:9"}
    done = run_cli("doctor", "--no-outside", "--json", check=False, environment=environment)
    assert json.loads(done.stdout)
    assert "there is no store in" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_create_prepares_a_store_once(tmp_path):
    folder = tmp_path / "new"
    for _ in range(2):
        done = run_cli("db", "create", "--data-dir", str(folder))
        assert done.stdout == f"The store in {folder} is ready.\n"
    assert json.loads(run_cli("keys", "list", "--json", "--data-dir", str(folder)).stdout) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SENDBACK_OUTBUND", "did you mean SENDBACK_OUTBOUND?"),
        ("SENDBACK_FROBNICATE", "see `sendback config show`"),
        ("SENDBACK_SERVICE_HOST", None),
        ("SENDBACK_PORT_4579_TCP_ADDR", None),
        ("SENDBACK_PORT", None),
    ],
)
def test_variables_that_are_no_settings(name, expected):
    done = run_cli("config", "show", "--json", environment={name: "x"})
    text = f"Warning: {name} is no setting, and has no effect: {expected}.\n" if expected else ""
    assert done.stderr == text


def test_config_shows_the_settings_of_the_server(server):
    rows = server.json("config", "show")
    found = {row["setting"]: (row["value"], row["from"]) for row in rows}
    assert found["http_listen"] == ("127.0.0.1:0", "running server")
    assert found["outbound"] == ("smtp://127.0.0.1:9", "running server")


def test_policies_of_nobody(server):
    for command in (("--user", "nobody"), ("--identity", "no.example")):
        done = server.run("policies", "list", *command, "--json", check=False)
        assert done.returncode == 1
        assert "there is no identity no.example" in done.stderr or "no user nobody" in done.stderr
    done = server.run("identities", "records", "no.example", "--json", check=False)
    assert done.returncode == 1


def test_an_unknown_account(server):
    for command in (("messages", "list"), ("identities", "verify", "a.example"), ("keys", "list")):
        done = server.run(*command, "--account", "222222222222", check=False)
        assert done.returncode == 1
        assert done.stderr == (
            "sendback: there is no account 222222222222: create it with `sendback accounts create "
            "--id 222222222222`, or see `sendback accounts list`\n"
        )


def test_bounce_finds_the_server_and_the_message(tmp_path):
    arguments = ("--sender", "a@example.com", "--recipient", "bob@example.com", "--json")
    with Sendback(tmp_path) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        prefix = send_mail(server.smtp_port)[:12] + "…"
        where = ("--data-dir", str(server.data_dir))
        done = run_cli("bounce", prefix, *arguments, *where, environment=CREDENTIALS)
        bounce_id = json.loads(done.stdout)["message_id"]
        assert server.json("outbox", "show", bounce_id[:20])["message_id"] == bounce_id
    done = run_cli("bounce", prefix, *arguments, *where, check=False, environment=CREDENTIALS)
    assert done.returncode == 2
    assert "no server runs on" in done.stderr


def test_a_prefix_of_several_ids(tmp_path):
    with Sendback(tmp_path) as server:
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        ids = sorted(send_mail(server.smtp_port) for _ in range(3))
        done = server.run("messages", "show", ids[0][:4], check=False)
        assert done.returncode == 1
        assert done.stderr.endswith(f"several IDs begin with {ids[0][:4]}: {', '.join(ids)}\n")
        for text in ("", "…", "%", "_", ids[0][:4].upper() + "x"):
            done = server.run("messages", "show", text, check=False)
            assert done.returncode == 1
            assert "there is no received message" in done.stderr
