"""Containerfile and compose.yaml, as far as they can be checked without a container engine.

The steps of Containerfile are run in a folder: `COPY` copies from what .dockerignore lets through,
`RUN` with pip installs into a virtual environment there (by uv, from its cache), and the server is
started with its `ENV`, `ENTRYPOINT` and `CMD`, as another user if this one is root. Ports, and the
paths of the image, are replaced. Not checked: the base image, and the commands that make the user.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
import yaml

from tests.docs.conftest import SYSTEM_PATH, UV
from tests.docs.pages import ROOT
from tests.partners.clients import send_mail
from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for_port

FILE = ROOT / "Containerfile"
VENV, DATA = "/opt/sendback", "/var/lib/sendback"
HADOLINT = next(ROOT.glob("tests/partners/fetched/hadolint/*/scripts/hadolint"), None)


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of Containerfile and their arguments."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines]


def argument(name: str) -> str:
    """Return the last argument of an instruction."""
    return [value for instruction, value in instructions() if instruction == name][-1]


@dataclass
class Image:
    """A folder with what the image has, and the variables with which its commands run."""

    folder: Path
    environment: dict[str, str]
    user: int | None
    ports: dict[str, int]

    def command(self, arguments: list[str]) -> list[str]:
        """Return a command with the ports of this machine."""
        return [self.with_ports(argument) for argument in arguments]

    def with_ports(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text

    def start(self, arguments: list[str], **options) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(arguments),
            env=self.environment,
            cwd=self.folder / "data",
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user else None,
            text=True,
            **options,
        )

    def run(self, arguments: list[str]) -> str:
        """Do what `docker exec` does."""
        process = self.start(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output


def let_through(context: Path) -> None:
    """Copy what .dockerignore does not exclude; it excludes all but the lines with `!`."""
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[0] == "*"
    for rule in rules[1:]:
        if rule.startswith("!"):
            source = ROOT / rule[1:]
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, context / rule[1:])


def interpreter(user: int | None) -> str:
    """Return a Python that the user may run: root's own may be below /root."""
    for python in (sys.executable, "/usr/bin/python3"):
        program = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            done = subprocess.run([python, "-c", program], user=user, cwd="/")
        except OSError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip("no Python 3.11 that another user than root may run")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that others than root may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="container-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def image(folder, environment):
    user = 10001 if os.getuid() == 0 else None
    python = interpreter(user)
    context, build = folder / "context", folder / "build"
    for made in (context, build, folder / "data"):
        made.mkdir()
    let_through(context)
    for name, value in instructions():
        if name == "COPY" and not value.startswith("--from"):
            *sources, target = value.split()
            for source in sources:
                path = context / source
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, build / source if target == "./" else build / target)
        elif name == "RUN" and VENV in value:
            subprocess.run(
                _with_uv(value, folder, python), shell=True, check=True, cwd=build, env=environment
            )
    if user:
        shutil.chown(folder / "data", user, user)
    (folder / "data").chmod(0o700)
    ports = {"4579": free_port(), "2525": free_port()}
    found = Image(folder, {}, user, ports)
    for pair in shlex.split(argument("ENV")):
        variable, _, value = pair.partition("=")
        value = value.replace("$PATH", SYSTEM_PATH).replace(VENV, str(folder / "venv"))
        found.environment[variable] = found.with_ports(value.replace(DATA, str(folder / "data")))
    # The test runs on machines without DNS; the name would be the container's.
    found.environment |= {"SENDBACK_DNS": "off", "SENDBACK_HOSTNAME": "mx.example.com"}
    return found


def _with_uv(command: str, folder: Path, python: str) -> str:
    """Return a command with uv in place of venv and pip, and its paths in the folder."""
    venv = folder / "venv"
    words = {
        f"python -m venv {VENV}": f"'{python}' -m venv --without-pip '{venv}'",
        f"{VENV}/bin/pip install --no-cache-dir": f"'{UV}' pip install --quiet --python '{venv}'",
    }
    for text, other in words.items():
        if text in command:
            return command.replace(text, other)
    raise AssertionError(f"Containerfile has a step that this test cannot run: {command}")


@pytest.fixture(scope="module")
def container(image):
    """The server with the container's command."""
    arguments = json.loads(argument("ENTRYPOINT")) + json.loads(argument("CMD"))
    with (image.folder / "log").open("w") as log:
        process = image.start(arguments, stdout=log, stderr=log)
    try:
        for port in image.ports.values():
            wait_for_port("127.0.0.1", port, (image.folder / "log").read_text)
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_server_of_the_image_is_healthy_and_receives_mail(image, container):
    health = argument("HEALTHCHECK")
    image.run(json.loads(health[health.index("[") :]))
    key = json.loads(image.run(["sendback", "keys", "create", "--json"]))
    ses = boto3.client(
        "ses",
        endpoint_url=f"http://127.0.0.1:{image.ports['4579']}",
        region_name="us-east-1",
        aws_access_key_id=key["access_key_id"],
        aws_secret_access_key=key["secret_access_key"],
    )
    ses.verify_domain_identity(Domain="example.com")

    message_id = send_mail(image.ports["2525"])
    assert ses.send_bounce(
        OriginalMessageId=message_id,
        BounceSender="mailer-daemon@example.com",
        BouncedRecipientInfoList=[{"Recipient": "bob@example.com", "BounceType": "DoesNotExist"}],
    )["MessageId"]
    ses.close()
    assert (image.folder / "data/sendback.db").stat().st_mode & 0o077 == 0


def test_the_development_key_is_off(image, container):
    ses = boto3.client(
        "ses",
        endpoint_url=f"http://127.0.0.1:{image.ports['4579']}",
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    with pytest.raises(ses.exceptions.ClientError, match="InvalidClientTokenId"):
        ses.list_identities()
    ses.close()


def test_it_ends_with_the_signal_of_docker_stop(image, container):
    assert argument("STOPSIGNAL") == "SIGTERM"
    container.terminate()
    assert container.wait(25) == 0


def test_the_image_runs_without_root():
    user, group = argument("USER").split(":")
    made = " ".join(value for name, value in instructions() if name == "RUN")
    assert int(user) == int(group) > 0
    assert f"--uid {user} --gid {group}" in made
    assert f"-o {user} -g {group} {DATA}" in made
    assert argument("VOLUME") == argument("WORKDIR") == DATA


def test_compose_serves_this_machine_only_and_keeps_the_data():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    service = compose["services"]["sendback"]
    assert service["build"] == {"context": ".", "dockerfile": FILE.name}
    published = [port.split(":") for port in service["ports"]]
    assert {address for address, _, _ in published} == {"127.0.0.1"}
    assert {inside for _, _, inside in published} == set(argument("EXPOSE").split())
    (volume,) = service["volumes"]
    name, path = volume.split(":")
    assert path == argument("VOLUME")
    assert name in compose["volumes"]
    assert service["stop_grace_period"] == "25s"
    assert all(isinstance(value, str) for value in service["environment"].values())


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_hadolint_finds_nothing():
    done = subprocess.run([HADOLINT, FILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
