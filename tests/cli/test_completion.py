"""Shell completion and the man page."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request

import pytest

from tests.conftest import need
from tests.partners.sendback import run_cli


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_the_script_of_a_shell(shell):
    script = run_cli("completion", shell).stdout
    assert "_SENDBACK_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_an_unknown_shell():
    assert run_cli("completion", "powershell", check=False).returncode == 2


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        ("sendback out", 1, {"outbox"}),
        ("sendback outbox ", 2, {"list", "retry", "hold", "release", "cancel"}),
        ("sendback serve --smtp-l", 2, {"--smtp-listen"}),
    ],
)
def test_what_is_completed(words, at, expected):
    environment = {
        **os.environ,
        "COMP_WORDS": words,
        "COMP_CWORD": str(at),
        "_SENDBACK_COMPLETE": "complete_bash",
    }
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'sendback';"
         "from sendback.__main__ import main; main()"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    offered = set(done.stdout.split())
    assert expected <= offered


def test_the_man_page_can_be_formatted():
    need("groff", available=shutil.which("groff") is not None)
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "docs/man/sendback.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "sendback outbox retry" in re.sub(".\b", "", done.stdout)


def test_the_demo_with_the_console_ends_with_ctrl_c(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "sendback", "demo", "--console"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
    ) as process:
        end_the_demo(process)


def end_the_demo(process):

    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Open http"):
            break
    url = line.split()[1]
    page = urllib.request.urlopen(url, timeout=10).read().decode()
    assert "Invoice 2207" in page
    assert "Are you still there?" in page
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait(20) == 0
    assert "The demo is complete" in rest
    assert "Traceback" not in rest
