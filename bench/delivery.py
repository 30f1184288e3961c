"""Draining a queue of 5 KB bounces into smtp-sink, in messages a second; Postfix beside it.

Both begin with the whole queue on disk and a sink that takes everything. Sendback starts with its
queue; Postfix holds its own back until it is told to flush.
"""

import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.partners.dns_server import DnsServer
from tests.partners.postfix import Postfix
from tests.partners.queue import fill
from tests.partners.sendback import Sendback, create_store, run_cli

from bench.common import count, folder, row, sink, smtp_source

MESSAGES = 3000
ROUNDS = 3


def main() -> None:
    print(f"Draining {MESSAGES} queued bounces of 5 KB into smtp-sink")
    ours: list[float] = []
    signed: list[float] = []
    by_mx: list[float] = []
    theirs: list[float] = []
    drains = ((ours, _sendback), (signed, _signing), (by_mx, _by_mx), (theirs, _postfix))
    for _ in range(ROUNDS):
        for figures, drain in drains:
            with sink() as port:
                figures.append(drain(port))
    middle, other = row("Sendback", ours, "messages/s"), row("Postfix", theirs, "messages/s")
    row("Sendback, each signed with DKIM (RSA-2048)", signed, "messages/s")
    row("Sendback by MX, one domain", by_mx, "messages/s")
    print(f"  ratio Sendback / Postfix (which does not sign): {middle / other:.2f}")


def _signing(port: int) -> float:
    return _sendback(port, "mailer-daemon@example.com")


def _by_mx(port: int) -> float:
    zone = "sender.example. 300 IN MX 0 mx.example.\nmx.example. 300 IN A 127.0.0.1\n"
    with DnsServer(zone) as dns:
        settings = {
            "SENDBACK_DNS": dns.address,
            "SENDBACK_MX_PORT": str(port),
            "SENDBACK_PRIVATE_TARGETS": "true",
        }
        return _sendback(port, outbound="mx", settings=settings)


def _sendback(
    port: int,
    sender: str | None = None,
    outbound: str = "",
    settings: Mapping[str, str] | None = None,
) -> float:
    environment = {
        "SENDBACK_VERIFICATION": "at_once",
        "SENDBACK_LOG_LEVEL": "warning",
        **(settings or {}),
    }
    with tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as name:
        place = Path(name)
        if sender:
            create_store(place / "data")
            command = ("identities", "verify", "example.com", "--dkim")
            run_cli(*command, "--data-dir", str(place / "data"), environment=environment)
        fill(place / "data", ["ann@sender.example"] * MESSAGES, sender)
        flags = ("--outbound", outbound or f"smtp://127.0.0.1:{port}")
        with Sendback(place, flags, environment) as server:
            start = time.perf_counter()
            already = count(server.data_dir, "delivered")
            while count(server.data_dir, "delivered") < MESSAGES:
                time.sleep(0.01)
            return (MESSAGES - already) / (time.perf_counter() - start)


def _postfix(port: int) -> float:
    extra = f"relayhost = [127.0.0.1]:{port}\ndefer_transports = smtp relay"
    with Postfix(extra.replace("relay_domains", "#")) as server:
        server.change("transport_maps", "")
        server.change("relay_domains", "sender.example")
        smtp_source(server.port, MESSAGES, to="ann@sender.example")
        while server.log.count("status=deferred") < MESSAGES:
            time.sleep(0.1)
        server.change("defer_transports", "")
        time.sleep(1)
        start = time.perf_counter()
        subprocess.run(["postqueue", "-c", server.folder / "etc", "-f"], check=True)
        while server.log.count("status=sent") < MESSAGES:
            time.sleep(0.01)
        return MESSAGES / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
