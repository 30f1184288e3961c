"""docs/scaling.md: its commands are run as they stand, and the files in deploy/ are well-formed."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import need
from tests.partners.postfix import free_port
from tests.partners.postgresql import binaries, private_server

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/scaling.md").read_text()
BEGIN, END = (
    "<!-- three nodes: run by tests/docs/test_scaling.py -->",
    "<!-- end of three nodes -->",
)
DEPLOY = ROOT / "deploy"
CHECKS = """
set -e
wait %1 2>/dev/null || true
test "$(sendback outbox list --data-dir node3 --json | grep -c original_message_id)" = 1
kill %2 %3
wait
"""


def commands() -> str:
    part = TEXT[TEXT.index(BEGIN) : TEXT.index(END)]
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", part, re.DOTALL | re.MULTILINE))


@pytest.mark.timeout(120)
def test_three_nodes_from_nothing(tmp_path):
    """Without the first three lines, which install and need the machine's own PostgreSQL."""
    need("PostgreSQL", available=binaries() is not None)
    lines = commands().splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["pip", "sudo", "sudo"]
    port = free_port()
    script = "\n".join(lines[3:])
    script = script.replace("sendback:choose-one@127.0.0.1/", f"sendback@127.0.0.1:{port}/")
    for old in ("2525", "4579"):  # others may use these ports
        script = script.replace(old, str(free_port()))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SENDBACK_", "AWS_", "PG"))}
    clean["PATH"] = f"{Path(sys.executable).parent}:{clean['PATH']}"
    with private_server(listen_addresses="127.0.0.1", port=str(port)) as server:
        server.execute("CREATE DATABASE sendback TEMPLATE template0")
        code, output = run(script + CHECKS, tmp_path, clean)
    assert code == 0, output
    assert '"MessageId"' in output


def run(script: str, folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and the output of the commands, and the logs of the nodes."""
    shell = subprocess.Popen(
        ["bash", "-m", "-c", script], cwd=folder, env=environment, text=True,
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = shell.communicate(timeout=100)
    finally:
        _end(folder)
    logs = "".join(log.read_text() for log in folder.glob("node*.log"))
    return shell.returncode, output + logs


def _end(folder: Path) -> None:
    """With job control each node has a process group of its own."""
    for pid in subprocess.run(
        ["pgrep", "-f", "sendback serve --data-dir node"], capture_output=True, text=True
    ).stdout.split():
        if Path(f"/proc/{pid}/cwd").resolve() == folder.resolve():
            os.kill(int(pid), signal.SIGKILL)


def test_compose_has_three_nodes_that_differ_in_name_and_volume():
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    nodes = [services[f"node{number}"] for number in (1, 2, 3)]
    assert len({node["environment"]["SENDBACK_HOSTNAME"] for node in nodes}) == 3
    assert len({node["volumes"][0] for node in nodes}) == 3
    for node in nodes:
        assert {"SENDBACK_DATABASE", "SENDBACK_SECRET"} <= node["environment"].keys()
        assert node["stop_grace_period"] == "25s"
    wanted = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    given = {line.split("=")[0] for line in (DEPLOY / ".env.example").read_text().splitlines()}
    assert wanted <= given


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml"])
def test_every_setting_that_is_given_exists(name):
    from sendback.config.settings import Settings

    known = {f"SENDBACK_{field.upper()}" for field in Settings.__dataclass_fields__}
    named = set(re.findall(r"\bSENDBACK_[A-Z_0-9]+", (DEPLOY / name).read_text()))
    assert named <= known


def test_kubernetes_is_well_formed():
    kinds = [d["kind"] for d in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())]
    assert kinds == ["Job", "StatefulSet", "Service", "Service", "PodDisruptionBudget"]
