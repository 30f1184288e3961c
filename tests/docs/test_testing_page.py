"""docs/testing.md: its files are written into a folder, in which pytest and Python run them."""

import ast
import os
import shutil
import subprocess
import sys

import pytest

import sendback.testing
from tests.conftest import need
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs/testing.md"
NOT_RUN = {"containers.py"}  # it needs a container engine

FILES = {block.file: block for block in blocks(PAGE) if block.language == "python"}


@pytest.fixture
def folder(tmp_path):
    """A folder with the files, and what every project that uses pytest-asyncio has."""
    for name, block in FILES.items():
        (tmp_path / name).write_text(block.text)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\naddopts = -p no:cacheprovider\n"
    )
    return tmp_path


def run(folder, *arguments):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=kept, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_python_block_is_a_file():
    named = [block for block in blocks(PAGE) if block.language == "python"]
    assert None not in FILES
    assert len(FILES) == len(named), "two blocks have the same name"


def test_the_tests_of_the_page_pass(folder):
    written = sum(block.text.count("def test_") for block in FILES.values())
    assert f"{written} passed" in run(folder, "-m", "pytest", "-q")


def test_the_scripts_of_the_page_run(folder):
    names = [
        name
        for name in FILES
        if not name.startswith("test_") and name not in NOT_RUN | {"conftest.py"}
    ]
    assert names == ["script.py"]
    output = run(folder, *names)
    assert "ann@example.org" not in output
    assert "from <sender@sender.example> to bob@example.com, 'Lunch?'" in output


def test_the_recipes_can_be_parsed(tmp_path):
    for name in NOT_RUN:
        ast.parse(FILES[name].text)
    (recipe,) = (block for block in blocks(PAGE) if block.language == "javascript")
    file = tmp_path / "recipe.mjs"
    file.write_text(recipe.text)
    need("node", available=bool(shutil.which("node")))
    subprocess.run(["node", "--check", file], check=True)


def test_the_page_names_everything_that_is_public():
    text = PAGE.read_text()
    missing = [name for name in sendback.testing.__all__ if f"`{name}" not in text]
    assert missing == []
    members = {name for name in vars(sendback.testing.Sendback) if not name.startswith("_")}
    not_public = {"app", "run"}  # for tests of Sendback itself, and said to be unstable
    assert [name for name in sorted(members - not_public) if f"`{name}" not in text] == []
