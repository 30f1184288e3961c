"""The commands in the documentation run, and its tables match the code."""

import doctest
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from sendback.api.operations import OPERATIONS
from sendback.aws.model import operation_names
from sendback.config.loading import ENVIRONMENT_PREFIX, load
from sendback.config.settings import Settings
from sendback.service.rules.setup_file import read_setup
from tests.partners.sendback import Sendback

ROOT = Path(__file__).parents[2]


def check_written(file: Path, content: str) -> None:
    """Compare the file with its content; with `UPDATE_GOLDEN=1`, write it first."""
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(content)
    assert file.read_text() == content, f"{file.name} is out of date: UPDATE_GOLDEN=1 make test"


def test_the_coverage_page_lists_every_operation():
    rows = [
        f"| {name} | {'built' if name in OPERATIONS else 'not yet: returns `InvalidAction`'} |"
        for name in sorted(operation_names())
    ]
    content = (
        "# API coverage\n\n"
        f"{len(OPERATIONS)} of the {len(rows)} operations of SES's API, version 2010-12-01. "
        "This page is written from the code.\n\n"
        "| operation | state |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    )
    check_written(ROOT / "docs/coverage.md", content)


def test_the_settings_table_lists_every_setting():
    rows = "\n".join(
        f"| `{entry.name}` | `{_default(entry)}` | {entry.metadata['about']} |"
        for entry in fields(Settings)
    )
    file = ROOT / "docs/operations.md"
    start, end = (
        "<!-- settings: written by tests/docs/test_docs.py -->\n",
        "<!-- end of settings -->",
    )
    before, _, rest = file.read_text().partition(start)
    after = rest.partition(end)[2]
    table = f"| setting | default | what it is |\n| --- | --- | --- |\n{rows}\n"
    check_written(file, before + start + table + end + after)


def _default(entry) -> str:
    return "the machine's name" if entry.name == "hostname" else entry.metadata["default"]


def test_every_setting_has_its_environment_variable():
    for entry in fields(Settings):
        loaded_from = {ENVIRONMENT_PREFIX + entry.name.upper(): entry.metadata["default"]}
        assert load({}, loaded_from).origins[entry.name] == "environment"


def test_the_readmes_demo_output_has_the_lines_that_the_demo_prints(tmp_path):
    """Ports, IDs and dates may differ; everything else is compared."""
    shown = re.search(r"\$ make demo\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    done = subprocess.run(
        [sys.executable, "-m", "sendback", "demo"], capture_output=True, text=True, cwd=tmp_path
    )
    assert _without_variable_parts(shown) == _without_variable_parts(done.stdout)


def _without_variable_parts(text: str) -> str:
    text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)
    text = re.sub(r"(message ID: |bounce ID:  )\S+", r"\1ID", text)
    return re.sub(r"-Date: .*", "-Date: DATE", text)


def test_the_readmes_session_works(tmp_path):
    """The shell and Python blocks of "Use it" run, with other ports."""
    readme = (ROOT / "README.md").read_text()
    section = readme.partition("## Use it")[2].partition("## What it promises")[0]
    shell = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    (python,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    environment = {"SENDBACK_SEND_BOUNCE_RATE": "0"}
    with Sendback(tmp_path, environment=environment) as server:
        script = "\n".join(
            [
                "set -eu",
                f"cd {tmp_path}",
                shell[0].rstrip() + " > swaks.txt",
                "MESSAGE_ID=$(sed -n 's/.* 250 2.6.0 \\([0-9a-v]*\\) .*/\\1/p' swaks.txt)",
                f"{sys.executable} - <<END\nmessage_id = '$MESSAGE_ID'\n{python}\nEND",
                shell[1].split("\n")[0],
                "BOUNCE_ID=$(sendback outbox list --json | "
                "python3 -c 'import json,sys; print(json.load(sys.stdin)[0][\"message_id\"])')",
                *shell[1].split("\n")[1:],
            ]
        )
        script = script.replace("127.0.0.1:4579", f"127.0.0.1:{server.http_port}")
        script = script.replace("127.0.0.1:2525", f"127.0.0.1:{server.smtp_port}")
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            capture_output=True,
            text=True,
            env={"PATH": path, "HOME": str(tmp_path), "SENDBACK_DATA_DIR": str(server.data_dir)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Final-Recipient: rfc822; bob@example.com" in done.stdout
        assert len(server.json("outbox", "list")) == 2


def test_the_readmes_setup_can_be_applied(tmp_path):
    """tests/cli/test_rules.py applies the setup of docs/receiving.md."""
    text = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    setup = read_setup(text, tmp_path / "setup.toml")
    assert setup.active_rule_set == "main"
    assert setup.targets["bucket", "mail"] == f"directory:{tmp_path}/mail"


def test_the_examples_of_the_dsn_page():
    failures, tried = doctest.testfile(str(ROOT / "docs/dsn.md"), module_relative=False)
    assert tried > 8
    assert failures == 0


PATH = re.compile(r"`((?:[a-z_0-9]+/)+(?:[a-z_0-9*]+\.(?:py|md|yml|sh))?|[a-z_]+\.py)`")
PACKAGES = ("", "delivery", "service", "service/identities")
ROOTS = ("", *(f"src/sendback/{package}" for package in PACKAGES))


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    if page == "docs/architecture.md":  # its other tables name files relative to their rows
        text = text[text.index("| looking for") : text.index("## Dependencies")]
    paths = set(PATH.findall(text))
    assert len(paths) > 20
    missing = [path for path in paths if not any(list((ROOT / root).glob(path)) for root in ROOTS)]
    assert missing == []
