"""`sendback messages`: list by state, retry and drop, while no server runs."""

import pytest

from tests.partners.clients import send_mail
from tests.partners.sendback import Sendback

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:f"
SETUP = f"""
identities = ["example.com"]
active_rule_set = "main"
[functions]
"{FUNCTION}" = "http://127.0.0.1:9/"
[[rule_sets.main.rules]]
Name = "all"
Actions = [
  {{ LambdaAction = {{ FunctionArn = "{FUNCTION}", InvocationType = "RequestResponse" }} }},
]
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A stopped server with six messages whose function is unreachable, and one without rules."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "setup.toml").write_text(SETUP)
    server = Sendback(folder, environment={"SENDBACK_DNS": "off"}).create()
    server.run("identities", "verify", "example.com")
    server.start()
    server.plain = send_mail(server.smtp_port)
    server.stop()
    server.run("rules", "apply", str(folder / "setup.toml"))
    server.start()
    server.ids = [send_mail(server.smtp_port) for _ in range(6)]
    server.stop()
    return server


@pytest.fixture
def server(stopped):
    """The server of `stopped`: two messages are held, one is done, three are queued."""
    held, done = stopped.ids[:2], stopped.ids[2]
    execute(stopped, "UPDATE processing SET state = 'queued', lease_owner = NULL, reason = NULL")
    for name in held:
        execute(stopped, f"UPDATE processing SET state = 'held', tries = 5, reason = 'a bug' "
                         f"WHERE message_id = '{name}'")  # fmt: skip
    execute(stopped, f"UPDATE processing SET state = 'done' WHERE message_id = '{done}'")
    return stopped


def execute(server, sql):
    return server.query(sql)


def listed(server, *options):
    return [row["message_id"] for row in server.json("messages", "list", *options)]


def test_messages_are_listed_by_the_state_of_their_processing(server):
    ids = server.ids
    assert listed(server) == [*reversed(ids), server.plain]
    assert listed(server, "--state", "held") == [ids[1], ids[0]]
    assert listed(server, "--state", "done") == [ids[2]]
    assert listed(server, "--state", "queued") == [ids[5], ids[4], ids[3]]
    assert listed(server, "--state", "queued", "--limit", "2") == [ids[5], ids[4]]
    assert listed(server, "--state", "dropped") == []
    states = [row["processing"] for row in server.json("messages", "list")]
    assert states == ["queued"] * 3 + ["done", "held", "held", None]
    table = server.run("messages", "list").stdout
    assert "processing" in table
    assert "held" in table
    odd = server.run("messages", "list", "--state", "odd", check=False)
    assert odd.returncode == 2
    assert "queued, held, done, dropped" in odd.stderr
    assert server.json("messages", "show", ids[0])["reason"] == "a bug"
    assert "a bug" in server.run("messages", "show", ids[0]).stdout


def test_held_messages_are_retried(server):
    first, second, done, queued = server.ids[:4]
    assert server.run("messages", "retry", first).stdout == f"{first} is due now.\n"
    assert listed(server, "--state", "held") == [second]
    query = f"SELECT state, tries, reason FROM processing WHERE message_id = '{first}'"
    assert execute(server, query) == [("queued", 0, None)]
    assert server.run("messages", "retry", "--all").stdout == "1 message is due now.\n"
    assert server.run("messages", "retry", "--all").stdout == "0 messages are due now.\n"
    for name, words in (
        (done, "is done: only a held message"),
        (queued, "is queued: only a held message"),
        (server.plain, "came without an active rule set"),
        ("nobody", "there is no received message nobody"),
    ):
        refused = server.run("messages", "retry", name, check=False)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert words in refused.stderr


def test_a_retry_restarts_the_time_limits_of_the_steps(server):
    (name,) = server.ids[:1]
    execute(server, "UPDATE steps SET first_at = 1, due_at = 9999999999999, broken = 5")
    server.run("messages", "retry", name)
    columns = "broken, first_at > 1, due_at = first_at"
    query = f"SELECT {columns} FROM steps WHERE processing_id LIKE '{name}%'"
    assert execute(server, query) == [(0, 1, 1)]


def test_messages_are_dropped(server):
    ids = server.ids
    nothing = server.run("messages", "drop", check=False)
    assert nothing.returncode == 2
    assert "--all" in nothing.stderr
    assert server.run("messages", "drop", ids[3]).stdout == f"{ids[3]} is dropped.\n"
    assert server.json("messages", "show", ids[3])["reason"] == "dropped by the operator"
    again = server.run("messages", "drop", ids[3], check=False)
    assert (again.returncode, "is dropped: there is nothing to drop" in again.stderr) == (1, True)
    assert "2 messages are" in server.run("messages", "drop", "--all", "--state", "held").stdout
    assert listed(server, "--state", "queued") == [ids[5], ids[4]]
    assert "2 messages are dropped" in server.run("messages", "drop", *ids).stdout
    assert listed(server, "--state", "done") == [ids[2]]
    assert len(listed(server)) == 7  # the messages themselves are kept
    odd = server.run("messages", "drop", "--all", "--state", "done", check=False)
    assert odd.returncode == 2


def test_a_message_in_progress_is_unchanged(server):
    name = server.ids[4]
    execute(server, f"UPDATE processing SET lease_owner = 'w', due_at = 9999999999999 "
                   f"WHERE message_id = '{name}'")  # fmt: skip
    output = server.run("messages", "drop", name).stdout
    assert output == f"{name} is unchanged: a worker is processing it now.\n"
    assert name in listed(server, "--state", "queued")


def test_thousands_of_messages_are_changed_in_batches(server):
    """Also with more messages in other states between them than a batch holds."""
    columns = "message_id, account_id, version, rule_set, created_at, state, due_at, lease_token"
    execute(
        server,
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO processing (processing_id, {columns})
        SELECT 'x' || i || '/000000000000', 'x' || i, '000000000000', 'v', 'main', 0,
               iif(i % 2, 'held', 'done'), 0, 0 FROM n""",
    )
    done = server.run("messages", "retry", "--all")
    assert done.stdout == "2502 messages are due now.\n"
    assert done.stderr == "1000 so far\n2000 so far\n"
    assert execute(server, "SELECT count(*) FROM processing WHERE state = 'held'") == [(0,)]
    execute(server, "DELETE FROM processing WHERE message_id LIKE 'x%'")
