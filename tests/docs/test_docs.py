"""The tables, examples and file names in the documentation match the code."""

import doctest
import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from sendback.api.operations import OPERATIONS
from sendback.aws.model import operation_names
from sendback.config.loading import ENVIRONMENT_PREFIX, load
from sendback.config.settings import Settings

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
