"""Memory for ten large mails in progress, on each content store: `python -m bench.memory`.

Ten mails of 39 MB come at once. Their rule has verdicts determined (they are signed, so bodies
are hashed), stores them in S3, calls a webhook as a function, and publishes to a topic, which
bounces them as they are too large. Printed is the peak of the server's resident memory above idle,
and that of its processes for verdicts, as a multiple of the size of the mails.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.partners.dns_server import DnsServer
from tests.partners.object_server import BUCKET, CREDENTIALS, ObjectServer
from tests.partners.postgresql import binaries, private_server
from tests.partners.sendback import Sendback, run_cli
from tests.partners.webhook import Webhook

from bench.common import folder
from bench.large_mail import MEGABYTES, ZONE, children, megabytes, send
from sendback.store.engine.store import prepare_schema

MAILS = 10
GOAL = 2.5
SETUP = """\
identities = ["example.com"]
active_rule_set = "main"
buckets = {{ {bucket} = "endpoint:{s3}" }}
functions = {{ check = "{webhook}" }}
topics = {{ mail = "{webhook}" }}
[[rule_sets.main.rules]]
Name = "all"
Actions = [
    {{ S3Action = {{ BucketName = "{bucket}", ObjectKeyPrefix = "{prefix}/" }} }},
    {{ LambdaAction = {{ FunctionArn = "arn:aws:lambda:us-east-1:000000000000:function:check" }} }},
    {{ SNSAction = {{ TopicArn = "arn:aws:sns:us-east-1:000000000000:mail" }} }},
]
"""
KINDS = ("directory, SQLite", "database, SQLite", "database, PostgreSQL", "s3, SQLite")


def main() -> None:
    chosen = sys.argv[1:] or KINDS
    print(f"{MAILS} mails of {MEGABYTES} MB at once: resident memory above idle")
    with (
        tempfile.TemporaryDirectory(prefix="sendback-bench-", dir=folder()) as place,
        DnsServer(ZONE) as dns,
        objects(Path(place)) as server,
    ):
        for kind in chosen:
            with database(kind) as url:
                _measure(kind, Path(place, uuid4().hex), dns, server, url)


@contextmanager
def objects(place: Path) -> Iterator[ObjectServer]:
    """Moto's S3: the target of the action, and a content store."""
    server = ObjectServer(place).start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of the database; empty: SQLite."""
    if "PostgreSQL" not in kind:
        yield ""
        return
    if binaries() is None:
        sys.exit("PostgreSQL is not installed")
    with private_server(fsync="on") as server:
        url = server.create_empty()
        prepare_schema(url)
        yield url


def _measure(kind: str, place: Path, dns: DnsServer, server: ObjectServer, url: str) -> None:
    place.mkdir()
    store = server.url(place.name) if kind.startswith("s3") else kind.partition(",")[0]
    environment = {
        **CREDENTIALS,
        "SENDBACK_DNS": dns.address,
        "SENDBACK_LOG_LEVEL": "warning",
        "SENDBACK_DATABASE": url,
        "SENDBACK_CONTENT_STORE": store,
        "SENDBACK_SECRET": os.urandom(32).hex(),
        "SENDBACK_CHECK_TARGETS": "false",
        "SENDBACK_PRIVATE_TARGETS": "true",
    }
    with Webhook() as hook, Sendback(place, (), environment) as sendback:
        prefix = f"mail-{place.name}"
        setup = SETUP.format(
            bucket=BUCKET, prefix=prefix, s3=f"http://127.0.0.1:{server.port}", webhook=hook.url
        )
        (place / "setup.toml").write_text(setup)
        apply = ("rules", "apply", str(place / "setup.toml"), "--data-dir", str(sendback.data_dir))
        run_cli(*apply, environment=environment)
        time.sleep(1.5)
        if sendback.process is None:
            raise RuntimeError("not started")
        _run(kind, sendback.process.pid, sendback.smtp_port, lambda: len(server.keys(prefix)))


def _run(kind: str, process: int, port: int, stored: Callable[[], int]) -> None:
    idle = megabytes(process)
    started, peaks = time.perf_counter(), [0.0, 0.0]
    senders = [threading.Thread(target=send, args=(port,)) for _ in range(MAILS)]
    for sender in senders:
        sender.start()
    received = 0.0
    next_look = time.perf_counter()
    while True:
        peaks[0] = max(peaks[0], megabytes(process))
        peaks[1] = max(peaks[1], sum(map(megabytes, children(process))))
        received = received or (
            0.0 if any(map(threading.Thread.is_alive, senders)) else time.perf_counter() - started
        )
        if received and time.perf_counter() > next_look:
            next_look = time.perf_counter() + 1
            if stored() == MAILS:
                break
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    above = peaks[0] - idle
    share = above / (MAILS * MEGABYTES)
    print(
        f"  {kind:24} idle {idle:4,.0f} MB, peak +{above:4,.0f} MB = {share:.2f} x the mails "
        f"(goal {GOAL}), verdicts {peaks[1]:4,.0f} MB; received in {received:5.1f} s, "
        f"all done in {seconds:5.1f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
