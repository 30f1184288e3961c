"""Real DNS: NSD with a signed zone and a plain one, and Unbound that validates before it."""

import shutil
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import dns.dnssec
import dns.message
import dns.name
import dns.node
import dns.query
import dns.rdataset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec

from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for_port

_FETCHED = Path(__file__).parent / "fetched"
NSD = _FETCHED / "nsd/usr/sbin/nsd"
UNBOUND = _FETCHED / "unbound/usr/sbin/unbound"

_HEAD = """\
@ 300 IN SOA ns.{zone}. admin.{zone}. 1 3600 600 86400 60
@ 300 IN NS ns.{zone}.
ns 300 IN A 127.0.0.1
"""
_NSD = """\
server:
  ip-address: 127.0.0.1@{port}
  username: ""
  chroot: ""
  zonesdir: "{folder}"
  database: ""
  pidfile: "{folder}/nsd.pid"
  xfrdfile: "{folder}/xfrd.state"
  zonelistfile: "{folder}/zone.list"
  xfrdir: "{folder}"
  logfile: "{folder}/nsd.log"
  do-ip6: no
remote-control:
  control-enable: no
zone:
  name: "{signed}"
  zonefile: "signed.zone"
zone:
  name: "{unsigned}"
  zonefile: "unsigned.zone"
"""
_UNBOUND = """\
server:
  interface: 127.0.0.1
  port: {port}
  username: ""
  chroot: ""
  directory: "{folder}"
  pidfile: "{folder}/unbound.pid"
  logfile: "{folder}/unbound.log"
  use-syslog: no
  do-daemonize: no
  do-ip6: no
  do-not-query-localhost: no
  module-config: "validator iterator"
  trust-anchor: "{anchor}"
  domain-insecure: "{unsigned}"
  local-zone: "{signed}" nodefault
stub-zone:
  name: "{signed}"
  stub-addr: 127.0.0.1@{authority}
stub-zone:
  name: "{unsigned}"
  stub-addr: 127.0.0.1@{authority}
remote-control:
  control-enable: no
"""


def is_usable() -> bool:
    return NSD.exists() and UNBOUND.exists()


class Dnssec:
    """Zones as text with names relative to them; `port` is where Unbound answers."""

    def __init__(
        self, signed: tuple[str, str], unsigned: tuple[str, str], *, port: int = 0
    ) -> None:
        """Each a zone's name and its records."""
        self.folder = Path(tempfile.mkdtemp(prefix="sendback-dns-"))
        self._authority, self.port = free_port(), port or free_port()
        anchor = self._sign(*signed)
        name, records = unsigned
        (self.folder / "unsigned.zone").write_text(_HEAD.format(zone=name) + records)
        values = {"folder": self.folder, "signed": signed[0], "unsigned": name}
        nsd = _NSD.format(port=self._authority, **values)
        (self.folder / "nsd.conf").write_text(nsd)
        unbound = _UNBOUND.format(
            port=self.port, authority=self._authority, anchor=anchor, **values
        )
        (self.folder / "unbound.conf").write_text(unbound)
        self._processes: list[subprocess.Popen[bytes]] = []

    def _sign(self, name: str, records: str) -> str:
        """Answers the trust anchor."""
        zone = dns.zone.from_text(_HEAD.format(zone=name) + records, origin=f"{name}.")
        private = ec.generate_private_key(ec.SECP256R1())
        key = dns.dnssec.make_dnskey(private.public_key(), "ECDSAP256SHA256", flags=257)
        expires = datetime.now(UTC) + timedelta(days=7)
        with zone.writer() as writer:
            dns.dnssec.sign_zone(
                zone, writer, keys=[(private, key)], expiration=expires, add_dnskey=True,
                dnskey_ttl=300,
            )  # fmt: skip
        zone.to_file(str(self.folder / "signed.zone"), relativize=False)
        return f"{name}. DS {dns.dnssec.make_ds(f'{name}.', key, 'SHA256')}"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        for command in (
            [NSD, "-d", "-c", self.folder / "nsd.conf"],
            [UNBOUND, "-d", "-c", self.folder / "unbound.conf"],
        ):
            with (self.folder / "out").open("ab") as out:
                self._processes.append(subprocess.Popen(command, stdout=out, stderr=out))
        for port in (self._authority, self.port):
            wait_for_port("127.0.0.1", port, self._logs)
        return self

    def _logs(self) -> str:
        files = [self.folder / name for name in ("out", "nsd.log", "unbound.log")]
        return "".join(file.read_text() for file in files if file.exists())

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
            process.wait(20)
        shutil.rmtree(self.folder, ignore_errors=True)
