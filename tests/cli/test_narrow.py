"""Every listing command on a terminal of 80 columns, with real IDs and long addresses.

The output is in docs/command-line.md; with `UPDATE_GOLDEN=1` it is written anew. Afterwards the
titles are compared, and that nothing is broken: IDs, dates and values change in each run.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from sendback.cli.tables import display_width
from tests.partners.clients import send_mail, ses
from tests.partners.sendback import Sendback
from tests.partners.waiting import wait_for

PAGE = Path(__file__).parents[2] / "docs/command-line.md"
START, END = "<!-- tables: written by tests/cli/test_narrow.py -->\n", "<!-- end of tables -->"
LONG = "accounts.receivable+2026@finance.department.of-a-large-company.example"
COMMANDS = (
    "messages list",
    "messages show MESSAGE",
    "outbox list",
    "outbox show BOUNCE",
    "outbox domains",
    "rules list",
    "rules show",
    "identities list",
    "identities records example.com",
    "policies list --identity example.com",
    "accounts list",
    "users list",
    "keys list",
    "faults list",
)
SETUP = """
identities = ["example.com", "finance.department.of-a-large-company.example"]
active_rule_set = "receiving-2026"
[topics]
"arn:aws:sns:us-east-1:000000000000:mails" = "http://127.0.0.1:9/hook"
[[rule_sets.receiving-2026.rules]]
Name = "publish-everything"
Recipients = ["example.com", ".department.of-a-large-company.example"]
Actions = [
  { AddHeaderAction = { HeaderName = "X-Seen", HeaderValue = "yes" } },
  { SNSAction = { TopicArn = "arn:aws:sns:us-east-1:000000000000:mails" } },
]
"""
POLICY = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
"Principal": {"AWS": "111111111111"}, "Action": "ses:SendBounce",
"Resource": "arn:aws:ses:us-east-1:000000000000:identity/example.com"}]}"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two mails, a bounce of each, and one of everything else."""
    folder = tmp_path_factory.mktemp("narrow")
    (folder / "setup.toml").write_text(SETUP)
    (folder / "policy.json").write_text(POLICY)
    environment = {"SENDBACK_SEND_BOUNCE_RATE": "0", "SENDBACK_DNS": "off"}
    flags = ("--outbound", "smtp://127.0.0.1:9")
    with Sendback(folder, flags, environment) as server:
        server.run("rules", "apply", str(folder / "setup.toml"))
        server.run("identities", "verify", "example.com", "--dkim")
        server.run(
            "faults", "add", "api", "--name", "lose", "--operation", "GetSendQuota", "--lost"
        )
        server.run("accounts", "create", "--id", "111111111111", "--name", "Example Ltd")
        server.run("users", "create", "ann")
        server.run("keys", "create", "--user", "ann")
        policy = ("--identity", "example.com")
        server.run("policies", "put", "partner", str(folder / "policy.json"), *policy)
        recipients = "bob@example.com", "carol@finance.department.of-a-large-company.example"
        for recipient in recipients:
            mail = send_mail(server.smtp_port, sender=LONG, recipients=(recipient,))
            server.bounce = ses(server.endpoint).send_bounce(
                OriginalMessageId=mail,
                BounceSender="mailer-daemon@example.com",
                BouncedRecipientInfoList=[{"Recipient": recipient, "BounceType": "DoesNotExist"}],
            )["MessageId"]
            server.mail = mail
        wait_for(lambda: all(row["attempts"] for row in server.json("outbox", "list")))
        wait_for(lambda: not server.json("messages", "list", "--state", "queued"))
    return server


def on_terminal(server, command, columns):
    """What a command writes to a terminal."""
    first, second = pty.openpty()
    fcntl.ioctl(second, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    names = ("COLUMNS", "LINES")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in names and not name.startswith("SENDBACK_")
    }
    environment |= {"SENDBACK_DATA_DIR": str(server.data_dir), "TERM": "xterm"}
    arguments = command.replace("MESSAGE", server.mail).replace("BOUNCE", server.bounce).split()
    process = subprocess.Popen(
        [sys.executable, "-m", "sendback", *arguments],
        stdin=second, stdout=second, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip
    os.close(second)
    read = b""
    try:
        while data := os.read(first, 65536):
            read += data
    except OSError:  # the command has ended
        pass
    os.close(first)
    assert process.wait(60) == 0, process.stderr.read()
    process.stderr.close()
    return read.decode().replace("\r\n", "\n")


def titles(output):
    lines = output.split("\n")
    return [lines[number - 1] for number, line in enumerate(lines) if line.startswith("──")]


@pytest.fixture(scope="module")
def outputs(store):
    return {command: on_terminal(store, command, 80) for command in COMMANDS}


def test_no_line_of_a_list_is_wider_than_the_terminal(outputs):
    for command in COMMANDS:
        if " show " not in command and "records" not in command:
            for line in outputs[command].split("\n"):
                assert display_width(line) <= 80, (command, line)


def test_dates_and_ids_are_whole_or_a_prefix(store, outputs):
    listed = outputs["messages list"]
    assert len(re.findall(r"^\d\d-\d\d \d\d:\d\d  ", listed, re.MULTILINE)) == 2
    for prefix in re.findall(r"  ([0-9a-v]{12,})…", listed):
        shown = store.json("messages", "show", prefix + "…")
        assert shown["message_id"].startswith(prefix)
    bounces = re.findall(r"  ([0-9a-f-]{12,})…", outputs["outbox list"])
    assert len(set(bounces)) == 2
    assert store.json("outbox", "show", bounces[0])["message_id"].startswith(bounces[0])


def test_show_loses_nothing(store, outputs):
    assert store.bounce in outputs["outbox show BOUNCE"]
    assert "Connection refused" in outputs["outbox show BOUNCE"].replace("\n", " ")


def test_the_page_has_the_output_of_each_command(outputs):
    page = PAGE.read_text()
    before, _, rest = page.partition(START)
    shown, _, after = rest.partition(END)
    if os.environ.get("UPDATE_GOLDEN"):
        sessions = (f"$ sendback {name}\n{text.rstrip()}\n" for name, text in outputs.items())
        PAGE.write_text(f"{before}{START}```text\n" + "\n".join(sessions) + f"```\n{END}{after}")
        return
    for command, text in outputs.items():
        part = shown.partition(f"$ sendback {command}\n")[2].partition("\n$ sendback")[0]
        # In lists of messages, IDs need more or fewer characters in each run, which moves the
        # last columns.
        first = 4 if command in {"messages list", "outbox list"} else None
        assert [line.split()[:first] for line in titles(part)] == [
            line.split()[:first] for line in titles(text)
        ]


@pytest.mark.parametrize("columns", [20, 40, 60, 120, 200])
def test_other_widths(store, columns):
    text = on_terminal(store, "messages list", columns)
    assert max(map(display_width, text.split("\n"))) <= max(columns, 30)
