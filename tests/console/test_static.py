"""The files of other projects."""

import hashlib
import tomllib
from importlib.resources import files
from pathlib import Path

from tests.conftest import need

STATIC = files("sendback.console") / "static"
MODULES = Path(__file__).parents[1] / "browser" / "node_modules"


def test_vendored_files_are_those_of_npm():
    need("npm's packages", available=MODULES.is_dir())
    for entry in tomllib.loads((STATIC / "vendored.toml").read_text())["file"]:
        content = (STATIC / entry["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert content == (MODULES / entry["package"] / "dist" / entry["name"]).read_bytes()


def test_static_files_are_cached_by_their_content(console):
    page = console.raw("GET", "/console/static/console.css")
    again = console.raw(
        "GET", "/console/static/console.css", headers={"If-None-Match": page.headers["etag"]}
    )
    assert (page.status, again.status, again.html) == (200, 304, "")
    assert console.raw("GET", "/console/static/../routes.py").status == 404
