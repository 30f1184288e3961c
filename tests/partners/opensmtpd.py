"""An OpenSMTPD of its own: Debian's binary, unpacked beside the tests, with its own configuration.

Its spool is where it was built to be, so that only one can run on a machine.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

from tests.partners.waiting import wait_for_port, wait_for_text

BINARY = Path(__file__).parent / "fetched/opensmtpd/usr/sbin/smtpd"

_CONFIG = """\
pki "server" cert "{certificate}"
pki "server" key "{key}"
listen on {host} port {port} tls pki "server" hostname {name}
action "onward" relay host "smtp://127.0.0.1:{relay}"
match from any for any action "onward"
"""


def is_usable() -> bool:
    """It starts as root only, and needs its users."""
    try:
        pwd.getpwnam("opensmtpd"), pwd.getpwnam("opensmtpq")
    except KeyError:
        return False
    return BINARY.exists() and os.geteuid() == 0


class OpenSmtpd:
    """Passes all mail on to 127.0.0.1:`relay`; `tls` is a PEM file with a key and a chain."""

    def __init__(self, relay: int, *, host: str, port: int, name: str, tls: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sendback-opensmtpd-"))
        self.folder.chmod(0o755)
        self.host, self.port = host, port
        key, certificate = self.folder / "key.pem", self.folder / "certificate.pem"
        text = tls.read_text()
        start = text.index("-----BEGIN CERTIFICATE")
        key.write_text(text[:start])
        certificate.write_text(text[start:])
        key.chmod(0o600)
        certificate.chmod(0o600)
        values = {"host": host, "port": port, "name": name, "relay": relay}
        config = _CONFIG.format(certificate=certificate, key=key, **values)
        (self.folder / "smtpd.conf").write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_for_log(self, text: str, seconds: float = 20.0) -> str:
        """Answers the log once the text stands in it."""
        return wait_for_text(lambda: self.log, text, seconds)

    def __enter__(self) -> Self:
        shutil.rmtree("/var/spool/smtpd", ignore_errors=True)  # what an earlier one left behind
        for folder, mode in (("/var/lib/opensmtpd/empty", 0o755), ("/var/spool/smtpd", 0o711)):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder).chmod(mode)
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [BINARY, "-d", "-f", self.folder / "smtpd.conf"], stdout=log, stderr=log
            )
        wait_for_port(self.host, self.port, lambda: self.log)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
