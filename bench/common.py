"""What the benchmarks share: a server in a temporary folder, and figures side by side."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

from tests.partners.clients import ses
from tests.partners.sendback import Sendback

ROUNDS = 5


@contextmanager
def sendback(*flags: str) -> Iterator[Sendback]:
    """A server without rate limit that receives for example.com."""
    with tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=_folder()) as folder:
        environment = {"SENDBACK_SEND_BOUNCE_RATE": "0", "SENDBACK_LOG_LEVEL": "warning"}
        with Sendback(Path(folder), flags, environment) as server:
            ses(server.endpoint).verify_domain_identity(Domain="example.com")
            yield server


def _folder() -> str | None:
    """On a real disk: /tmp may be memory, where syncing costs nothing."""
    return os.environ.get("BENCH_FOLDER")


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
