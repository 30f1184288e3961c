"""A private PostgreSQL of the tests: an unprivileged user's, on a socket, with a copy a test.

With `TEST_DATABASE=postgresql` in the environment the suite runs on it: `database_url` is what a
test opens, and `tests/partners/server.py` and `sendback.py` do so for whole servers. One server
serves all processes of pytest-xdist: the first that needs it starts it, and a process of its own
stops it when the last of them has ended.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
from sqlalchemy import Connection, Engine, create_engine, text

from sendback.store.engine.store import prepare_schema
from sendback.store.engine.tables import metadata

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # tests of durability start a server of their own
    "max_connections": "300",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "5s",
}
_TEMPLATE = "sendback_template"


def binaries() -> Path | None:
    """The directory of PostgreSQL's programs; None: it is not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    return versions[0].parent if versions else None


def is_chosen() -> bool:
    """Whether the suite is to run on PostgreSQL."""
    return os.environ.get("TEST_DATABASE", "sqlite") == "postgresql"


def database_url(folder: Path) -> str:
    """The URL of the folder's database, for this run: `sendback.db` in it, or on the server.

    A new one on the server has this version's empty schema. It is dropped after the test in which
    it was made; a wider fixture keeps its own until the server stops.
    """
    if not is_chosen():
        return f"sqlite:///{folder.absolute() / 'sendback.db'}"
    key = folder.absolute()
    if key not in _databases:
        _databases[key] = shared_server().create()
    return _databases[key]


def environment_of(folder: Path) -> dict[str, str]:
    """The variables by which a command uses the database of a data directory."""
    return {"SENDBACK_DATABASE": database_url(folder)} if is_chosen() else {}


def database_setting() -> dict[str, str]:
    """The setting `database` of a server in the test's process: a new one, or the default."""
    return {"database": database_url(Path("/new", uuid.uuid4().hex))} if is_chosen() else {}


@contextmanager
def dropping_databases() -> Iterator[None]:
    """Drop at the end what `database_url` has made in between."""
    before = set(_databases)
    yield
    for folder in _databases.keys() - before:
        shared_server().drop(_databases.pop(folder))


def query(url: str, statement: str, **parameters: object) -> list[Any]:
    """Run a statement of SQL in a transaction of its own; its rows, if it has some.

    Parameters are written `:name`. For what no unit of the store does.
    """
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement), parameters)
            return [tuple(row) for row in result] if result.returns_rows else []
    finally:
        engine.dispose()


@contextmanager
def scratch_connection(*, checks_keys: bool = False) -> Iterator[Connection]:
    """A connection to empty tables, whose transaction is never committed.

    `checks_keys`: foreign keys are checked, and deletions cascade.
    """
    engine = _scratch_engine()
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql(f"PRAGMA foreign_keys = {checks_keys:d}")
            metadata.create_all(connection)
        elif not checks_keys:
            connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        yield connection
    if engine.dialect.name == "sqlite":
        engine.dispose()


def _scratch_engine() -> Engine:
    return _scratch_on_the_server() if is_chosen() else create_engine("sqlite://")


@cache
def _scratch_on_the_server() -> Engine:
    url = shared_server().create().replace("postgresql:", "postgresql+psycopg:")
    return create_engine(url, pool_size=1)


@contextmanager
def write_lock(url: str) -> Iterator[None]:
    """Hold back everybody who writes; reading goes on. The lock of SQLite, or of each table."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                names = ", ".join(metadata.tables)
                connection.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
            yield
            connection.rollback()
    finally:
        engine.dispose()


class PostgreSQL:
    """A server in a folder. `start` and `stop` may be called in turn."""

    def __init__(self, folder: Path, **settings: str) -> None:
        programs = binaries()
        if programs is None:
            raise RuntimeError("PostgreSQL is not installed")
        self._programs = programs
        self.folder = folder
        self._settings = {**_SETTINGS, **settings}

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def start(self) -> "PostgreSQL":
        """Make the cluster if it is new, and start the server."""
        if not self._data.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:  # it refuses to run as root
                shutil.chown(self.folder, "postgres", "postgres")
            self._run("initdb", "-D", str(self._data), "-U", "sendback", "-A", "trust", "-N",
                      "--encoding=UTF8", "--locale=C.UTF-8")  # fmt: skip
        options = " ".join(
            f"-c {name}={value or chr(39) * 2}"
            for name, value in {
                **self._settings,
                "unix_socket_directories": str(self.folder),
            }.items()
        )
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-o", options,
                  "-l", str(self.folder / "log"))  # fmt: skip
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `smart`, `fast` or `immediate`."""
        self._run("pg_ctl", "stop", "-w", "-D", str(self._data), "-m", mode)

    def url(self, database: str) -> str:
        port = self._settings.get("port", "5432")
        folder = quote(str(self.folder), safe="/")
        return f"postgresql://sendback@/{database}?host={folder}&port={port}"

    def create(self) -> str:
        """Make a database with this version's empty schema; its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY wal_log")
        return self.url(name)

    def create_empty(self) -> str:
        """Make a database without tables; its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url(name)

    def make_template(self) -> "PostgreSQL":
        """Make what `create` copies."""
        self.execute(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0")
        prepare_schema(self.url(_TEMPLATE))
        return self

    def drop(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        name = urlsplit(url).path.removeprefix("/")
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        if os.geteuid() == 0:
            command = [
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                *command,
            ]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd="/", timeout=60
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")


@cache
def shared_server() -> PostgreSQL:
    """The server of this run of pytest, started by the first process that needs it."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"alone-{os.getpid()}")
    folder = Path(tempfile.gettempdir(), f"sendback-postgresql-{run[:20]}")
    folder.mkdir(mode=0o755, exist_ok=True)
    server = PostgreSQL(folder / "server")
    held = (folder / "users").open("a")
    # Each process of the run holds a shared lock until it ends; who stops the server waits for it.
    with (folder / "starting").open("a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not (folder / "server").exists():
            server.start().make_template()
            stopping = subprocess.Popen(
                [sys.executable, "-m", "tests.partners.postgresql", str(folder)],
                start_new_session=True,
            )
            _held.append(stopping)
        fcntl.flock(held, fcntl.LOCK_SH)
    _held.append(held)
    return server


@contextmanager
def private_server(**settings: str) -> Iterator[PostgreSQL]:
    """A server of its own for a test that stops it, or that listens on a port of loopback."""
    with tempfile.TemporaryDirectory(prefix="sendback-pg-") as place:
        Path(place).chmod(0o755)  # the server's user has to reach what is in it
        server = PostgreSQL(Path(place, "server"), **settings).start()
        try:
            yield server
        finally:
            with suppress(RuntimeError):  # it is stopped already
                server.stop("immediate")


_held: list[object] = []
_databases: dict[Path, str] = {}


def _stop_after_the_last(folder: Path) -> None:
    time.sleep(2)  # the first user has its lock by then
    with (folder / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        PostgreSQL(folder / "server").stop("immediate")
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _stop_after_the_last(Path(sys.argv[1]))
