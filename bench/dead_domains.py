"""10,000 messages for 1,000 domains by MX, of which 50 do not answer: when are the others through?

The dead ones take no connection: their server's queue of connections is full, so that a connection
times out after 30 s. Each domain has a mail server of its own name; all of them are one smtp-sink.
"""

import contextlib
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.partners.dns_server import DnsServer
from tests.partners.postfix import free_port
from tests.partners.queue import fill
from tests.partners.sendback import Sendback

from bench.common import count, folder

DOMAINS, DEAD, MESSAGES = 1000, 50, 10_000
_SINK, _DEAD = "127.0.0.2", "127.0.0.3"


def main() -> None:
    print(f"{MESSAGES:,} messages for {DOMAINS:,} domains by MX, {DEAD} of which time out")
    port = free_port()
    dead = set(random.Random(1).sample(range(DOMAINS), DEAD))
    zone = "".join(
        f"d{n}.example. 300 IN MX 0 m{n}.example.\n"
        f"m{n}.example. 300 IN A {_DEAD if n in dead else _SINK}\n"
        for n in range(DOMAINS)
    )
    wanted = MESSAGES * (DOMAINS - DEAD) // DOMAINS
    with _sink(port), _silence(port), DnsServer(zone) as dns, _place() as place:
        fill(place / "data", [f"ann@d{n % DOMAINS}.example" for n in range(MESSAGES)])
        settings = {
            "SENDBACK_DNS": dns.address,
            "SENDBACK_MX_PORT": str(port),
            "SENDBACK_PRIVATE_TARGETS": "true",
            "SENDBACK_LOG_LEVEL": "error",
        }
        with Sendback(place, ("--outbound", "mx"), settings) as server:
            start = time.perf_counter()
            while (done := count(server.data_dir, "delivered")) < wanted:
                if time.perf_counter() - start > 300:
                    break
                time.sleep(0.05)
            seconds = time.perf_counter() - start
            waiting = count(server.data_dir, "queued")
    print(f"  {done:,} of {wanted:,} delivered after {seconds:.1f} s ({done / seconds:,.0f}/s)")
    print(f"  {waiting:,} messages for the dead domains wait")


@contextlib.contextmanager
def _sink(port: int) -> Iterator[None]:
    process = subprocess.Popen(["smtp-sink", "-u", "nobody", f"{_SINK}:{port}", "1000"])
    time.sleep(0.3)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _silence(port: int) -> Iterator[None]:
    """A server whose queue of connections is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind((_DEAD, port))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((_DEAD, port))
        yield


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as name:
        yield Path(name)


if __name__ == "__main__":
    main()
