"""The examples that are tests themselves, with Sendback as it is released.

examples/first-rule is a page to follow: test_readme.py does.
"""

import re
import shlex
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.conftest import need
from tests.docs.pages import ROOT, blocks
from tests.docs.test_readme import PAGES as FOLLOWED

EXAMPLES = ROOT / "examples"
NODE = EXAMPLES / "node-bouncer"

# The last line of the block of commands in the README of each, and what it prints at its end.
PASSED = {
    "dmarc-bouncer": ("pytest", r"\b6 passed"),
    "unittest": ("python -m unittest", r"\bRan 3 tests in .*\n\nOK\n"),
    "node-bouncer": ("npm test", r"# pass 5\n# fail 0\n"),
}


def test_each_example_is_run():
    folders = {path.parent.name for path in EXAMPLES.glob("*/README.md")}
    assert folders == {*PASSED, *(page.parent.name for page in FOLLOWED if page.parent != ROOT)}


@pytest.mark.parametrize("example", PASSED)
def test_an_example_passes(example, installed, tmp_path):
    """The packages that its README installs first are in the environment."""
    if example == NODE.name:
        need("node with npm", available=bool(shutil.which("node") and shutil.which("npm")))
        need("@aws-sdk/client-ses (npm ci)", available=(NODE / "node_modules").is_dir())
    command, end = PASSED[example]
    (block,) = (block for block in blocks(EXAMPLES / example / "README.md") if block.text)
    installation, last = block.text.splitlines()
    assert (installation.split()[0] in {"pip", "npm"}, last) == (True, command)
    folder = tmp_path / example
    shutil.copytree(EXAMPLES / example, folder, symlinks=True, ignore=_not_copied)
    if example == NODE.name:
        (folder / "node_modules").symlink_to(NODE / "node_modules")
    node = Path(shutil.which("node") or "/").parent
    environment = {**installed, "HOME": str(tmp_path), "PATH": f"{installed['PATH']}:{node}"}
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert re.search(end, output), output


def _not_copied(_: str, names: list[str]) -> set[str]:
    return {"node_modules", "__pycache__", ".pytest_cache"} & set(names)


def test_the_environment_has_nothing_of_development(installed, tmp_path):
    """pytest is no dependency, and the fixtures are found without a line of configuration."""
    done = subprocess.run(
        ["pytest", "--fixtures", "-q"], cwd=tmp_path, env=installed, capture_output=True, text=True
    )
    for name in ("sendback", "sendback_ses", "sendback_env", "sendback_inbox"):
        assert f"\n{name}" in done.stdout
    for module in ("xdist", "asyncio"):
        assert module not in done.stdout


def test_the_source_distribution_has_what_its_documentation_names(packages):
    (file,) = packages.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["Containerfile", "compose.yaml", "requirements.lock", "docs/testing.md"]
    assert set(wanted) <= names
    assert {f"examples/{example}/README.md" for example in PASSED} <= names
    assert not [name for name in names if "node_modules" in name or "__pycache__" in name]
