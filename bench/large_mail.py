"""Memory and time for large mails at once that a rule stores: `python -m bench.large_mail`.

25 mails of 40 MB come on connections of their own while the DNS verdicts are on; each is signed, so
that its body is hashed too. Printed are the peak of the server's resident memory above idle, that
of the processes that authenticate, and the time until the last object is stored.
"""

import socket
import tempfile
import threading
import time
from pathlib import Path

from tests.partners.dns_server import DnsServer
from tests.partners.sendback import Sendback

from bench.common import folder

MAILS = 25
MEGABYTES = 39
ZONE = """\
sender.example. 300 IN TXT "v=spf1 ip4:127.0.0.1 -all"
s._domainkey.sender.example. 300 IN TXT "v=DKIM1; p=YQ=="
"""
SETUP = """\
identities = ["example.com"]
active_rule_set = "main"
buckets = { mail = "directory:bucket" }
[[rule_sets.main.rules]]
Name = "all"
Actions = [{ S3Action = { BucketName = "mail" } }]
"""
HEADER = (
    b"DKIM-Signature: v=1; a=rsa-sha256; d=sender.example; s=s; c=relaxed/relaxed; h=From;"
    b" bh=AAAA; b=AAAA\r\nFrom: x@sender.example\r\n\r\n"
)


def main() -> None:
    print(f"{MAILS} mails of {MEGABYTES} MB at once, stored in a directory")
    with (
        tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as place,
        DnsServer(ZONE) as dns,
    ):
        environment = {"SENDBACK_DNS": dns.address, "SENDBACK_LOG_LEVEL": "warning"}
        with Sendback(Path(place), (), environment) as server:
            Path(place, "setup.toml").write_text(SETUP)
            server.run("rules", "apply", str(Path(place, "setup.toml")))
            time.sleep(1.5)
            _measure(server, Path(place, "bucket"))


def _measure(server: Sendback, bucket: Path) -> None:
    if server.process is None:
        raise RuntimeError("not started")
    process, idle = server.process.pid, megabytes(server.process.pid)
    started, peaks = time.perf_counter(), [0.0, 0.0]
    senders = [threading.Thread(target=send, args=(server.smtp_port,)) for _ in range(MAILS)]
    for sender in senders:
        sender.start()
    while _stored(bucket) < MAILS:
        own, others = megabytes(process), sum(map(megabytes, children(process)))
        peaks = [max(peaks[0], own), max(peaks[1], others)]
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    for sender in senders:
        sender.join()
    above = peaks[0] - idle
    print(f"  {'idle':42} {idle:10,.0f} MB")
    print(f"  {'peak above idle':42} {above:10,.0f} MB   ({above / MEGABYTES:.1f} mails)")
    print(f"  {'peak of the processes that authenticate':42} {peaks[1]:10,.0f} MB")
    print(f"  {'until the last is stored':42} {seconds:10,.1f} s")


def send(port: int) -> None:
    """Send one mail, piece by piece."""
    with socket.create_connection(("127.0.0.1", port), 120) as peer:
        replies = peer.makefile("rb")
        replies.readline()
        for command in (
            "HELO x",
            "MAIL FROM:<x@sender.example>",
            "RCPT TO:<b@example.com>",
            "DATA",
        ):
            peer.sendall(command.encode() + b"\r\n")
            replies.readline()
        peer.sendall(HEADER)
        for _ in range(MEGABYTES):
            peer.sendall((b"a" * 78 + b"\r\n") * (2**20 // 80))
        peer.sendall(b".\r\n")
        replies.readline()


def _stored(bucket: Path) -> int:
    return sum(not path.name.startswith(".") for path in bucket.glob("*"))


def children(process: int) -> list[int]:
    """Return the child processes."""
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(pid) for pid in text.split()]


def megabytes(process: int) -> float:
    """Return the resident memory."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return 0.0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return int(sizes[0]) / 1024 if sizes else 0.0


if __name__ == "__main__":
    main()
