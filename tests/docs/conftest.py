"""Sendback as it is released, for the tests that follow a page or run an example."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import need

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that the first process of this run fills, for all of them."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".done").exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            (folder / ".done").touch()
    return folder


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    need("uv", available=UV.is_file())

    def build(folder: Path) -> None:
        subprocess.run([UV, "build", "--quiet", "--out-dir", folder, ROOT], check=True)

    return once(tmp_path_factory, "packages", build)


@pytest.fixture(scope="session")
def wheel(packages: Path) -> Path:
    (built,) = packages.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The variables of this process, with a path of its own and nothing of Python or Sendback."""
    cache = subprocess.run([UV, "cache", "dir"], capture_output=True, text=True, check=True)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "PYTEST_", "PYTHON", "SENDBACK_", "VIRTUAL_ENV"))
    }
    return {**kept, "PATH": SYSTEM_PATH, "UV_CACHE_DIR": cache.stdout.strip()}


@pytest.fixture(scope="session")
def installed(
    tmp_path_factory: pytest.TempPathFactory, wheel: Path, environment: dict[str, str]
) -> dict[str, str]:
    """The variables for commands in a virtual environment with the wheel and pytest only."""

    def install(folder: Path) -> None:
        python = folder / "bin/python"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        subprocess.run(
            [UV, "pip", "install", "--quiet", "--python", python, wheel, "pytest"],
            env=environment,
            check=True,
        )

    folder = once(tmp_path_factory, "installed", install)
    return {**environment, "PATH": f"{folder}/bin:{SYSTEM_PATH}", "SENDBACK_DNS": "off"}
