"""What the benchmarks share: a server in a temporary folder, and figures side by side."""

import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

from tests.partners.clients import ses
from tests.partners.postfix import free_port
from tests.partners.sendback import Sendback

ROUNDS = 5


@contextmanager
def sendback(*flags: str) -> Iterator[Sendback]:
    """A server without rate limit that receives for example.com."""
    with tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as place:
        environment = {"SENDBACK_SEND_BOUNCE_RATE": "0", "SENDBACK_LOG_LEVEL": "warning"}
        with Sendback(Path(place), flags, environment) as server:
            ses(server.endpoint).verify_domain_identity(Domain="example.com")
            yield server


def folder() -> str | None:
    """On a real disk: /tmp may be memory, where syncing costs nothing."""
    return os.environ.get("BENCH_FOLDER")


@contextmanager
def sink() -> Iterator[int]:
    """An smtp-sink that takes everything; answers its port."""
    port = free_port()
    process = subprocess.Popen(["smtp-sink", "-u", "nobody", f"127.0.0.1:{port}", "1000"])
    time.sleep(0.3)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def smtp_source(port: int, messages: int, *, connections: int = 10, to: str) -> float:
    """Messages a second of 5 KB, each on a connection of its own (smtp-source's default)."""
    command = [
        "smtp-source", "-s", str(connections), "-m", str(messages), "-l", "5120",
        "-f", "ann@sender.example", "-t", to, f"127.0.0.1:{port}",
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return messages / (time.perf_counter() - start)


def bounce_form(message_id: str) -> str:
    """The body of a SendBounce for it."""
    return urlencode(
        {
            "Action": "SendBounce",
            "Version": "2010-12-01",
            "OriginalMessageId": message_id,
            "BounceSender": "mailer-daemon@example.com",
            "BouncedRecipientInfoList.member.1.Recipient": "bob@example.com",
            "BouncedRecipientInfoList.member.1.BounceType": "DoesNotExist",
        }
    )


def count(data_dir: Path, state: str) -> int:
    """Straight from the database: a command of its own would take part in the race."""
    connection = sqlite3.connect(data_dir / "sendback.db")
    query = "SELECT count(*) FROM outbox WHERE state = ?"
    found = connection.execute(query, (state,)).fetchone()[0]
    connection.close()
    return int(found)


def machine() -> str:
    """One line that says what the figures were measured on."""
    return (
        f"{os.cpu_count()} cores, Python {'.'.join(map(str, __import__('sys').version_info[:3]))}"
    )


def row(name: str, values: list[float], unit: str) -> float:
    """Prints the median with its range; answers the median."""
    middle = median(values)
    print(f"  {name:42} {middle:10,.0f} {unit}   ({min(values):,.0f} to {max(values):,.0f})")
    return middle
