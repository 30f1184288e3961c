"""README.md and examples/first-rule/README.md, as a newcomer runs them.

Sendback is built as a wheel and installed into a new virtual environment. The blocks of a page are
run in their order, each pasted whole into a shell that an error ends (`set -eu`). Its folder has
nothing but that environment (and the example's files), its path only the system's programs. Ports
are replaced by free ones.

`rule_of` returns the rule for each block; a block that no rule covers fails the test:

- `run`: sh. It is pasted, and must end with success.
- `install`: sh with `pip install sendback`. As `run`, with the wheel instead of the released
  package, and with uv instead of pip, which takes five times as long.
- `file`: python. It is written into the file that the paragraph before it names.
- `clone`: sh that begins with `make`. Make only prints its commands (`--dry-run`), because they
  install all development tools. The other lines of the block must be in the block `install`.
- `serve`: sh with nothing but a command that runs until Ctrl-C. It continues in its terminal; the
  blocks below it are pasted into a new one.
- `output`: text. Its lines must be in the output of the last block, in this order. A line `…` is
  for lines that are left out; ports and IDs may differ.
- `setup`: toml. It must be the file examples/first-rule/setup.toml, which the example applies.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from tests.docs.conftest import SYSTEM_PATH, UV
from tests.docs.pages import ROOT, Block, blocks
from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for, wait_for_port

EXAMPLE = ROOT / "examples/first-rule"
PAGES = [ROOT / "README.md", EXAMPLE / "README.md"]
SERVERS = {"sendback serve": ("4579", "2525"), "python receiver.py": ("8000",)}  # and their ports

_PATIENCE_SECONDS = 30.0
_ENDED = "== the block has ended =="


def rule_of(block: Block) -> str:
    """Return the rule for a block. Raise `AssertionError` if there is none."""
    lines = block.text.splitlines()
    if block.language == "sh":
        if "pip install sendback" in lines:
            return "install"
        if lines[0].split()[0] == "make":
            return "clone"
        return "serve" if block.text.strip() in SERVERS else "run"
    rule = {"text": "output", "toml": "setup", "python": "file"}.get(block.language)
    assert rule, f"line {block.line}: no rule for a block of the language {block.language!r}"
    return rule


@pytest.mark.parametrize("language", ["", "console", "java", "bash"])
def test_a_block_without_a_rule_is_an_error(language):
    with pytest.raises(AssertionError, match="no rule"):
        rule_of(Block(language, "$ sendback serve\n", 1))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_blocks_can_be_pasted_into_any_shell(page):
    """Interactive zsh takes `#` for an argument; a tab would complete a name."""
    for block in blocks(page):
        if block.language == "sh":
            assert not re.search(r"(^|\s)#", block.text), f"line {block.line}: a comment"
            assert "\t" not in block.text, f"line {block.line}: a tab"


@dataclass
class Terminal:
    """A shell into which blocks are pasted. `ports` replaces the ports that a page names."""

    folder: Path
    environment: dict[str, str]
    ports: dict[str, int]
    shell: "subprocess.Popen[str]" = field(init=False)

    def __post_init__(self) -> None:
        self.shell = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env=self.environment,
            start_new_session=True,
        )
        self._type("set -eu")

    def _type(self, text: str) -> None:
        assert self.shell.stdin is not None
        self.shell.stdin.write(text + "\n")
        self.shell.stdin.flush()

    def paste(self, text: str, redirection: str = "</dev/null") -> str:
        """Run a block to its end; return what it prints."""
        text = with_ports(text, self.ports)
        # The block becomes a function: its commands must not read the rest of the script.
        self._type(f"block() {{\n{text}}}\nblock {redirection}\nunset -f block; echo '{_ENDED}'")
        assert self.shell.stdout is not None
        printed = ""
        for line in self.shell.stdout:
            printed += line
            if printed.endswith(f"{_ENDED}\n"):
                return printed.removesuffix(f"{_ENDED}\n")
        raise AssertionError(f"this block failed:\n{text}\nIt printed:\n{printed}")

    def close(self) -> None:
        """End everything that was started in it; wait until all of it has closed the terminal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.shell.pid, signal.SIGTERM)
        self.shell.communicate(timeout=_PATIENCE_SECONDS)


class Newcomer:
    """Follows a page: does with each block what its rule says."""

    def __init__(self, folder: Path, environment: dict[str, str], wheel: Path) -> None:
        self.folder = folder
        self.ports = {"4579": free_port(), "2525": free_port(), "8000": free_port()}
        self.environment = environment | {
            "HOME": str(folder),  # no settings of AWS, pip or uv
            "SENDBACK_HTTP_LISTEN": f"127.0.0.1:{self.ports['4579']}",
            "SENDBACK_SMTP_LISTEN": f"127.0.0.1:{self.ports['2525']}",
            "SENDBACK_DNS": "off",  # tests ask nothing of the internet's DNS
        }
        self.outputs: list[str] = []
        self.ended: dict[str, float] = {}  # when the block ended that begins with this line
        self._wheel = wheel
        self._blocks: list[Block] = []
        self._terminals = [Terminal(folder, self.environment, self.ports)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for terminal in self._terminals:
            terminal.close()

    def follow(self, page: Path) -> None:
        self._blocks = blocks(page)
        for block in self._blocks:
            getattr(self, f"_do_{rule_of(block)}")(block)
            self.ended[block.text.splitlines()[0]] = time.monotonic()

    def json(self, *arguments: str) -> Any:
        """What a `sendback` command prints in the last terminal."""
        command = shlex.join(["sendback", *arguments, "--json"])
        return json.loads(self._terminals[-1].paste(f"{command}\n"))

    def log(self, command: str) -> str:
        """What a command that runs until Ctrl-C has printed."""
        return (self.folder / f"{command}.log").read_text()

    def _do_run(self, block: Block) -> None:
        self.outputs.append(self._terminals[-1].paste(self._with_uv(block.text)))
        if "sendmail(" in block.text:  # a reader takes more time than the rules do
            wait_for(
                lambda: not self.json("messages", "list", "--state", "queued"), _PATIENCE_SECONDS
            )

    def _do_install(self, block: Block) -> None:
        text = block.text.replace(
            "python3 -m venv .venv", f"'{sys.executable}' -m venv --without-pip .venv"
        ).replace("pip install sendback", f"pip install '{self._wheel}'")
        self.ended[""] = time.monotonic()
        self.outputs.append(self._terminals[-1].paste(self._with_uv(text)))

    def _with_uv(self, text: str) -> str:
        return text.replace("pip install", f"'{UV}' pip install --quiet")

    def _do_file(self, block: Block) -> None:
        assert block.file, f"line {block.line}: the paragraph before it names no file"
        (self.folder / block.file).write_text(block.text)

    def _do_clone(self, block: Block) -> None:
        make, *rest = block.text.splitlines()
        (install,) = [other for other in self._blocks if rule_of(other) == "install"]
        assert set(rest) < set(install.text.splitlines())
        done = subprocess.run(
            [*make.split(), "--dry-run", "--always-make"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "-m venv .venv" in done.stdout
        assert "--editable ." in done.stdout

    def _do_serve(self, block: Block) -> None:
        command = block.text.strip()
        log = self.folder / f"{command}.log"
        self._terminals[-1].paste(block.text, f"</dev/null 3>&1 >'{log}' 2>&1 &")
        for port in SERVERS[command]:
            wait_for_port("127.0.0.1", self.ports[port], log.read_text)
        self._terminals.append(Terminal(self.folder, self.environment, self.ports))

    def _do_output(self, block: Block) -> None:
        printed = without_variable_parts(self.outputs[-1])
        for part in re.split(r"^…\n", without_variable_parts(block.text), flags=re.MULTILINE):
            _, found, rest = printed.partition(part or "\n")
            assert found, f"{part}is not in:\n{printed}"
            printed = rest

    def _do_setup(self, block: Block) -> None:
        assert block.text == (EXAMPLE / "setup.toml").read_text()


def with_ports(text: str, ports: dict[str, int]) -> str:
    for port, free in ports.items():
        text = re.sub(rf"\b{port}\b", str(free), text)
    return text


def without_variable_parts(text: str) -> str:
    text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)
    return re.sub(r"(message ID: |bounce ID:  )\S+", r"\1ID", text)


@pytest.fixture(scope="module")
def readme(wheel, environment, tmp_path_factory) -> Iterator[Newcomer]:
    """A newcomer who has followed README.md to its end, and whose server still runs."""
    with Newcomer(tmp_path_factory.mktemp("readme"), environment, wheel) as newcomer:
        newcomer.follow(ROOT / "README.md")
        yield newcomer


def test_the_readme_from_its_first_block_to_its_last(readme):
    (message,) = readme.json("messages", "list")
    bounces = readme.json("outbox", "list")
    assert (message["from"], message["to"]) == ("ann@sender.example", ["bob@example.com"])
    assert [bounce["original_message_id"] for bounce in bounces] == [message["message_id"]] * 2
    assert "\nFinal-Recipient: rfc822; bob@example.com\n" in readme.outputs[-1]


def test_the_first_test_is_green_soon(readme, record_property):
    """It has at most 15 lines, and runs with what two `pip install` have installed."""
    (page,) = (block for block in blocks(ROOT / "README.md") if block.file == "test_bounce.py")
    assert len(page.text.splitlines()) <= 15
    (output,) = (output for output in readme.outputs if " passed in " in output)
    assert "1 passed" in output
    seconds = readme.ended["pip install pytest"] - readme.ended[""]
    record_property("seconds from the installation to the first green test", seconds)
    print(f"from the installation, which uv does from its cache, to a green test: {seconds:.1f} s")


def test_the_first_rule(readme, wheel, environment, tmp_path):
    """Its page asks for an active environment: README.md's is on the path of each terminal."""
    ignored = shutil.ignore_patterns("__pycache__", "mail", "sendback-data")
    shutil.copytree(EXAMPLE, tmp_path, ignore=ignored, dirs_exist_ok=True)
    active = environment | {"PATH": f"{readme.folder}/.venv/bin:{SYSTEM_PATH}"}
    with Newcomer(tmp_path, active, wheel) as newcomer:
        for name in ("setup.toml", "receiver.py"):
            file = tmp_path / name
            file.write_text(with_ports(file.read_text(), newcomer.ports))
        newcomer.follow(EXAMPLE / "README.md")
        messages = newcomer.json("messages", "list")
        (bounce,) = newcomer.json("outbox", "list")
        printed = newcomer.log("python receiver.py")
    to_eve, to_bob = (message["message_id"] for message in messages)
    (stored,) = (tmp_path / "mail").iterdir()
    assert stored.name == to_bob
    assert stored.read_text().endswith("\nDear Bob, are you free?\n")
    assert printed.startswith("Subject: Lunch on Friday?\n")
    assert printed.count("Dear Bob") == 1
    assert bounce["original_message_id"] == to_eve
    applied, _, listed, shown = newcomer.outputs
    assert "Rule set main is active." in applied
    assert "calls arn:aws:lambda:us-east-1:000000000000:function:check" in applied
    assert "Dear Bob, are you free?" in listed
    assert "answered STOP_RULE_SET" in shown
    assert "\nFinal-Recipient: rfc822; eve@example.com\n" in shown.replace("\r\n", "\n")
