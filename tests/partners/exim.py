"""An Exim of its own: Debian's binary, unpacked beside the tests, with its own configuration.

The packages of Postfix and Exim exclude each other, so `install.sh` unpacks Exim's into a folder.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for_port, wait_for_text

BINARY = Path(__file__).parent / "fetched/exim/usr/sbin/exim4"
USER = "Debian-exim"  # compiled in

_CONFIG = """\
exim_path = {binary}
primary_hostname = mx.sender.example
spool_directory = {folder}/spool
log_file_path = {folder}/log/%slog
daemon_smtp_ports = {port}
local_interfaces = {host}
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
{tls}
disable_ipv6 = true
keep_environment =
never_users =
smtp_accept_max_per_connection = 1000
acl_smtp_rcpt = accept_all
acl_smtp_data = accept_all
begin acl
accept_all:
  accept
begin routers
unknown:
  driver = redirect
  domains = example.com
  allow_fail
  data = :fail: no such user here
relay:
  driver = manualroute
  domains = ! example.com
  route_list = * 127.0.0.1::{relay}
  self = send
  transport = smtp
begin transports
smtp:
  driver = smtp
  allow_localhost
begin retry
* * F,2h,15m
"""


def is_usable() -> bool:
    """Exim starts as root only, and needs its user."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return BINARY.exists() and os.geteuid() == 0


class Exim:
    """Bounces mail for example.com, and passes all other mail on to 127.0.0.1:`relay`.

    `tls` is a PEM file with a key and a chain.
    """

    def __init__(
        self, relay: int, *, host: str = "127.0.0.1", port: int = 0, tls: Path | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sendback-exim-"))
        self.folder.chmod(0o755)
        self.host = host
        self.port = port or free_port()
        for name in ("spool", "log"):
            (self.folder / name).mkdir()
            shutil.chown(self.folder / name, USER)
        self._config = self.folder / "exim.conf"
        offered = "tls_advertise_hosts ="
        if tls is not None:
            offered = f"tls_advertise_hosts = *\ntls_certificate = {tls}\ntls_privatekey = {tls}"
        values = {"binary": BINARY, "folder": self.folder, "port": self.port, "relay": relay}
        values |= {"host": host, "tls": offered}
        self._config.write_text(_CONFIG.format(**values))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return "".join(file.read_text() for file in sorted((self.folder / "log").iterdir()))

    def wait_for_log(self, text: str, seconds: float = 20.0) -> str:
        """Answers the log once the text stands in it."""
        return wait_for_text(lambda: self.log, text, seconds)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [BINARY, "-C", self._config, "-bdf", "-q1h"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self.host, self.port, lambda: self.log)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        time.sleep(0.2)
        shutil.rmtree(self.folder, ignore_errors=True)
