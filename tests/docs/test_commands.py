"""The commands on every page exist, and the sessions of docs/ can be run.

Parsed, with `--help` behind it, is each `sendback …` in a block or in running text: the command and
its options must exist. `list|show` stands for two commands.

Run are the sessions, the blocks ```console, page by page, on a store in the state that the page
describes. The server of the store has stopped, because its deliveries would change the counts. IDs
are replaced by those of the store. The output is compared with the page's: exactly, but for blanks,
if there is no date in it, otherwise by the names of its columns and fields.

Only parsed are the commands that ask DNS about a domain (`PARSED_ONLY`), and those in the blocks
```sh of docs/ and CONTRIBUTING.md, which install, release or need Docker; these blocks must be
correct as shell scripts. README.md and examples/ are run by test_readme.py, docs/inspection.md by
tests/inspection/test_page.py.
"""

import itertools
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sendback.cli.main import app
from tests.docs.pages import ROOT, blocks, code_spans
from tests.partners.clients import send_mail, ses
from tests.partners.listener import Listener
from tests.partners.sendback import Sendback, run_cli
from tests.partners.waiting import wait_for

PAGES = sorted(
    [
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "examples").glob("*/*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    ]
)
PARSED_ONLY = ("sendback doctor", "sendback identities check")
LANGUAGES = {
    "",
    "console",
    "java",
    "javascript",
    "json",
    "python",
    "sh",
    "text",
    "toml",
}  # "": a drawing

GROUPS = sorted(group.name for group in app.registered_groups)
COMMANDS = [*GROUPS, *(command.name for command in app.registered_commands)]


def commands_of(page: Path) -> Iterator[str]:
    """Yield every `sendback …` of a page."""
    for block in blocks(page):
        if block.language == "console":
            yield from (c for c, _ in block.commands if c.startswith("sendback "))
        elif block.language == "sh":
            yield from commands_in(block.text)
    for span in code_spans(page):
        command = re.sub(r"^(SENDBACK_\w+=\S+ )+", "", span)
        if command.startswith("sendback "):
            yield command
        elif re.match(rf"({'|'.join(GROUPS)}) [a-z-]+( |$)", command):
            yield f"sendback {command}"


def commands_in(script: str) -> Iterator[str]:
    """Yield every `sendback …` of a shell script; before it may be others: `docker exec …`."""
    for part in re.split(r"\$\(|[()|;&\n]", script.replace("\\\n", " ")):
        found = re.search(rf"\bsendback ({'|'.join(COMMANDS)})\b.*", part)
        if found:
            yield found[0]


def alternatives(command: str) -> Iterator[list[str]]:
    """Yield the arguments of each command that `sendback a|b c|d …` stands for."""
    first, second, *rest = [*shlex.split(command)[1:], ""]
    for names in itertools.product(first.split("|"), second.split("|")):
        yield [argument for argument in (*names, *rest) if argument]


def problem_of(arguments: list[str]) -> str:
    """Return why a command cannot be parsed, or nothing."""
    result = CliRunner().invoke(app, [*arguments, "--help"])
    return "" if result.exit_code == 0 else result.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_command_of_a_page_exists(page):
    problems = {
        " ".join(arguments): problem
        for command in commands_of(page)
        for arguments in alternatives(command)
        if (problem := problem_of(arguments))
    }
    assert problems == {}


def test_commands_are_found_and_checked():
    assert sum(len(list(commands_of(page))) for page in PAGES) > 80
    assert "sendback keys create" in list(commands_of(ROOT / "docs/operations.md"))
    assert list(alternatives("sendback users|keys list -n 1"))[1] == ["keys", "list", "-n", "1"]
    assert list(alternatives("sendback --version")) == [["--version"]]
    for wrong in ("message list", "messages lists", "messages list --stat held", "serve --fast"):
        assert problem_of(wrong.split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_of_a_page_is_of_a_known_kind(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"line {block.line}"
        if block.language == "console" and page.name != "inspection.md":
            assert page.name in SESSIONS, f"line {block.line}: no test runs this session"
        if block.language == "sh":
            checked = subprocess.run(["bash", "-n"], input=block.text, text=True)
            assert checked.returncode == 0, f"line {block.line}"


class Relay(Listener):
    """Refuses the recipients of docs/delivery.md with the replies that the page shows."""

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        reply = {
            "nowhere.example": "550 5.1.2 there is no domain nowhere.example",
            "slow.example": "450 4.7.1 Greylisted, please try again in 300 seconds",
            "quiet.example": "451 4.3.0 Try again",
        }.get(address.partition("@")[2])
        if reply is None:
            envelope.rcpt_tos.append(address)
        return reply or "250 2.1.5 Ok"


def delivery(folder: Path) -> dict[str, str]:
    """Bounce one mail to each recipient in the page's list; stop when each was tried."""
    page = (ROOT / "docs/delivery.md").read_text()
    shown = {to: name for name, to in re.findall(r" (\S+-000000) +(\S+@\S+) ", page)}
    assert len(shown) == 5
    environment = {"SENDBACK_SEND_BOUNCE_RATE": "0", "SENDBACK_DNS": "off"}
    with Relay() as relay, Sendback(folder, ("--outbound", relay.url), environment) as server:
        client = ses(server.endpoint)
        client.verify_domain_identity(Domain="example.com")
        for sender in shown:
            client.send_bounce(
                OriginalMessageId=send_mail(server.smtp_port, sender=sender),
                BounceSender="mailer-daemon@example.com",
                BouncedRecipientInfoList=[
                    {"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}
                ],
            )
        wait_for(lambda: all(row["attempts"] for row in server.json("outbox", "list")))
        rows = server.json("outbox", "list")
    return {shown[row["recipient"]]: row["message_id"] for row in rows}


def identities(folder: Path) -> dict[str, str]:
    """Attach the page's policy, whose account need not exist."""
    (block,) = (block for block in blocks(ROOT / "docs/identities.md") if block.language == "json")
    (folder / "policy.json").write_text(block.text)
    server = Sendback(folder).create()
    for arguments in (
        ("rules", "apply", str(folder / "setup.toml")),
        ("policies", "put", "p", str(folder / "policy.json"), "--identity", "example.com"),
    ):
        server.run(*arguments)
    return {}


def faults(folder: Path) -> dict[str, str]:
    """Make an empty store."""
    Sendback(folder).create()
    return {}


def receiving(folder: Path) -> dict[str, str]:
    """Receive a mail and set its processing aside."""
    page = (ROOT / "docs/receiving.md").read_text()
    (shown,) = set(re.findall(r"\$ sendback messages show (\S+)", page))
    server = Sendback(folder, environment={"SENDBACK_DNS": "off"}).create()
    server.run("rules", "apply", str(folder / "setup.toml"))
    with server:
        message_id = send_mail(server.smtp_port)
    server.query("UPDATE processing SET state = 'held', tries = 5, reason = 'a bug'")
    return {shown: message_id}


SESSIONS = {
    "delivery.md": delivery,
    "faults.md": faults,
    "identities.md": identities,
    "receiving.md": receiving,
}


@pytest.mark.parametrize("page", SESSIONS)
def test_the_sessions_of_a_page_run(page, tmp_path):
    (tmp_path / "setup.toml").write_text(
        'identities = ["example.com"]\nactive_rule_set = "main"\n'
        '[[rule_sets.main.rules]]\nName = "all"\n'
    )
    ids = SESSIONS[page](tmp_path)
    environment = {
        "SENDBACK_DATA_DIR": str(tmp_path / "data"),
        "SENDBACK_DNS": "off",
        "SENDBACK_VERIFICATION": "at_once",
    }
    for block in blocks(ROOT / "docs" / page):
        if block.language == "console":
            for command, shown in block.commands:
                if not command.startswith(PARSED_ONLY):
                    check(command, shown, ids, environment)


def check(command: str, shown: str, ids: dict[str, str], environment: dict[str, str]) -> None:
    """Run a command with real IDs, and compare its output with what the page shows."""
    for name, real in ids.items():
        command = command.replace(name, real)
    done = run_cli(*shlex.split(command)[1:], check=False, environment=environment)
    code = 1 if shown.startswith("decision  refused") else 0
    assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
    if not shown:
        return
    compared = names if re.search(r"\d{4}-\d\d-\d\d", shown) else words
    assert compared(done.stdout) == compared(shown), command


def words(output: str) -> list[str]:
    """Return the words of an output, without the lines of tables."""
    return re.sub("─+", " ", output).split()


def names(output: str) -> list[str]:
    """Return the names of the fields in an output, and of the columns of its table."""
    lines = [line for line in output.splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if "──" in line:
            fields, columns = lines[: number - 1], lines[number - 1]
            return [*(field.partition("  ")[0] for field in fields), *columns.split()]
    return [line.partition("  ")[0] for line in lines]
