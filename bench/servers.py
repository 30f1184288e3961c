"""The servers that are measured side by side in one run: each with a port and its processes."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.partners.clients import ses
from tests.partners.postfix import Postfix, free_port
from tests.partners.postgresql import PostgreSQL, query
from tests.partners.sendback import Sendback

from bench.common import folder
from bench.processes import cpu_seconds

_ENVIRONMENT = {"SENDBACK_SEND_BOUNCE_RATE": "0", "SENDBACK_LOG_LEVEL": "warning"}
_HOLD = (
    "smtpd_recipient_restrictions = check_recipient_access static:HOLD, permit\nin_flow_delay = 0"
)


@dataclass
class Measured:
    """A server: its SMTP port, the recipient that it accepts, and its process IDs."""

    name: str
    port: int
    recipient: str
    processes: tuple[int, ...]
    sendback: Sendback | None = None
    rates: dict[Any, list[float]] = field(default_factory=dict)
    costs: dict[Any, list[float]] = field(default_factory=dict)

    def cpu(self) -> float:
        """Return the CPU seconds that it has used, with its database."""
        return cpu_seconds(*self.processes)

    def count(self, state: str) -> int:
        """Return how many outgoing messages are in a state."""
        if self.sendback is None:
            raise ValueError("no queue")
        url = self.sendback.environment["SENDBACK_DATABASE"]
        found = query(url, "SELECT count(*) FROM outbox WHERE state = :state", state=state)
        return int(found[0][0])


class Servers:
    """Starts servers, and stops them at the end of `with`."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._postgresql: PostgreSQL | None = None
        self._postmaster = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sqlite(self, name: str = "Sendback, SQLite", *flags: str) -> Measured:
        place = self._folder()
        (place / "data").mkdir(mode=0o700)
        return self._sendback(name, place, f"sqlite:///{place / 'data' / 'sendback.db'}", flags)

    def postgresql(self, name: str = "Sendback, PostgreSQL", *flags: str) -> Measured:
        if self._postgresql is None:
            place = self._folder()
            place.chmod(0o755)
            server = PostgreSQL(place / "server", fsync="on", synchronous_commit="on")
            self._postgresql = server.start().make_template()
            self._stack.callback(server.stop, "immediate")
            process = (place / "server" / "data" / "postmaster.pid").read_text().split()[0]
            self._postmaster = int(process)
        # Its processes are those of all databases: only one of them may be busy at a time.
        measured = self._sendback(name, self._folder(), self._postgresql.create(), flags)
        measured.processes += (self._postmaster,)
        return measured

    def postfix(self) -> Measured:
        """Postfix takes mail into its hold queue: no delivery, nothing else to do."""
        server = self._stack.enter_context(Postfix(_HOLD))
        master = int((server.folder / "queue" / "pid" / "master.pid").read_text())
        return Measured("Postfix (hold queue)", server.port, "bob@sender.example", (master,))

    def bare_sink(self) -> Measured:
        port = free_port()
        command = [sys.executable, "-m", "bench.bare_sink", str(port), str(self._folder() / "x.db")]
        process = subprocess.Popen(command)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)
        time.sleep(1)
        return Measured("bare sink with SQLite", port, "bob@example.com", (process.pid,))

    def _sendback(self, name: str, place: Path, url: str, flags: tuple[str, ...]) -> Measured:
        environment = {**_ENVIRONMENT, "SENDBACK_DATABASE": url}
        server = self._stack.enter_context(Sendback(place, flags, environment))
        ses(server.endpoint).verify_domain_identity(Domain="example.com")
        processes = (server.process.pid,) if server.process else ()
        return Measured(name, server.smtp_port, "bob@example.com", processes, server)

    def _folder(self) -> Path:
        name = tempfile.TemporaryDirectory(
            prefix="sendback-bench-", dir=folder(), ignore_cleanup_errors=True
        )
        return Path(self._stack.enter_context(name))


@contextmanager
def measuring(server: Measured, key: Any, count: int) -> Iterator[None]:
    """Record the rate and the CPU µs of each of `count` operations in between."""
    before, started = server.cpu(), time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    server.rates.setdefault(key, []).append(count / seconds)
    server.costs.setdefault(key, []).append((server.cpu() - before) / count * 1e6)


def scaled(count: int) -> int:
    """Return the count, or less with `BENCH_SCALE` (0.1: a tenth) for a quick look."""
    return max(int(count * float(os.environ.get("BENCH_SCALE", "1"))), 20)
