"""A Postfix of its own: own configuration, queue and ports, Debian's binaries."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.partners.waiting import wait_for_text

BINARY = Path("/usr/sbin/postfix")

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file_prefixes = {folder}
maillog_file = {folder}/log
myhostname = mx.sender.example
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
local_recipient_maps =
alias_maps =
relay_domains = {domain}
transport_maps = inline:{{ {domain}={onward} }}
smtputf8_enable = yes
smtpd_client_connection_count_limit = 0
{extra}
"""

_MASTER = """\
{host}:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def is_usable() -> bool:
    """Postfix starts as root only."""
    return BINARY.exists() and os.geteuid() == 0


def free_port() -> int:
    """One that nobody listens on, on any address.

    Below the ports that the system gives to clients: one of those might take it meanwhile.
    """
    while True:
        port = random.randint(10_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port


class Postfix:
    """Takes mail for a domain and throws it away, or passes it on, writing its log."""

    def __init__(
        self,
        extra: str = "",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        domain: str = "sender.example",
        onward: str = "discard:",
    ) -> None:
        # pytest's folders are closed to the user that Postfix runs as.
        self.folder = Path(tempfile.mkdtemp(prefix="sendback-postfix-"))
        self.folder.chmod(0o755)
        self.host = host
        self.port = port or free_port()
        config = self.folder / "etc"
        config.mkdir()
        values = {"folder": self.folder, "host": host, "port": self.port, "extra": extra}
        values |= {"domain": domain, "onward": onward}
        (config / "main.cf").write_text(_MAIN.format(**values))
        (config / "master.cf").write_text(_MASTER.format(**values))
        for name in ("queue", "data"):
            (self.folder / name).mkdir()
        shutil.chown(self.folder / "data", "postfix")

    @property
    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    def wait_for_log(self, text: str, seconds: float = 20.0) -> str:
        """Answers the log once the text stands in it."""
        return wait_for_text(lambda: self.log, text, seconds)

    def change(self, name: str, value: str) -> None:
        """Sets a parameter of main.cf while it runs."""
        folder = self.folder / "etc"
        subprocess.run(["postconf", "-c", folder, "-e", f"{name}={value}"], check=True)
        self._postfix("reload")

    def __enter__(self) -> Self:
        self._postfix("start")
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection((self.host, self.port), timeout=1) as connection:
                    if connection.recv(3) == b"220":
                        return self
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"Postfix did not start:\n{self.log}") from None
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._postfix("abort")
        time.sleep(0.2)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _postfix(self, command: str) -> None:
        subprocess.run(
            [BINARY, "-c", self.folder / "etc", command], check=True, capture_output=True
        )
