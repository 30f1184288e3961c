"""A `sendback serve` process, as an operator would start it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from sendback.clock import SystemClock
from sendback.config.loading import load
from sendback.data_directory import check_data_directory
from sendback.store.access.accounts import AddAccount
from sendback.store.engine.store import prepare_schema, transact
from tests.partners.postgresql import database_url, environment_of, query

_PATIENCE_SECONDS = 120.0


@dataclass
class Sendback:
    """Start it with `start`; the ports are free ones, the store is in `folder`."""

    folder: Path
    flags: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    http_port: int = 0
    smtp_port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def database_url(self) -> str:
        return self.environment.get("SENDBACK_DATABASE") or database_url(self.data_dir)

    def query(self, statement: str, **parameters: object) -> list[Any]:
        """Run a statement of SQL in the server's database; its rows, if it has some."""
        return query(self.database_url, statement, **parameters)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def start(self) -> "Sendback":
        """Returns when it serves, on the same ports as before if it has run before."""
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "sendback", "serve",
            "--http-listen", f"127.0.0.1:{self.http_port}",
            "--smtp-listen", f"127.0.0.1:{self.smtp_port}",
            "--data-dir", str(self.data_dir), "--ready-file", str(ready),
            "--hostname", "mx.example.com", *self.flags,
        ]  # fmt: skip
        at_once = {"SENDBACK_VERIFICATION": "at_once"}
        environment = {
            **_clean_environment(),
            **environment_of(self.data_dir),
            **at_once,
            **self.environment,
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder
            )
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sendback did not start:\n{self.log}")
            time.sleep(0.005)
        addresses = json.loads(ready.read_text())
        self.http_port, self.smtp_port = addresses["http"]["port"], addresses["smtp"]["port"]
        return self

    def stop(self) -> int:
        """SIGTERM; answers the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL: what is not durable is lost."""
        return self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE_SECONDS)

    def create(self) -> "Sendback":
        """Make the store, without starting the server."""
        create_store(self.data_dir)
        return self

    def run(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Another `sendback` command on the same store."""
        return run_cli(*arguments, "--data-dir", str(self.data_dir), check=check)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json").stdout)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def create_store(data_dir: Path) -> None:
    """Do what `sendback db create` does, without its start-up."""
    settings = load({"data_dir": str(data_dir)}, environ=environment_of(data_dir)).settings
    check_data_directory(settings.data_dir)
    prepare_schema(settings.database_url)
    account = AddAccount(settings.account_id, SystemClock().now())
    transact(settings.database_url, account, writes=True)


def run_cli(
    *arguments: str, check: bool = True, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """A `sendback` command, on the database of the data directory that it names."""
    given = list(arguments)
    named = Path(given[given.index("--data-dir") + 1]) if "--data-dir" in given else None
    database = environment_of(named) if named else {}
    return subprocess.run(
        [sys.executable, "-m", "sendback", *arguments],
        capture_output=True,
        text=True,
        check=check,
        timeout=60,
        env={**_clean_environment(), **database, **(environment or {})},
    )


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SENDBACK_")}
