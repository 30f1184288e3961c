"""A PgBouncer in transaction mode, before a private PostgreSQL."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from tests.partners.postgresql import PostgreSQL


class PgBouncer:
    """Started by `with`. All clients share one connection to each database."""

    def __init__(self, server: PostgreSQL, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self._file = folder / "pgbouncer.ini"
        self._log = folder / "pgbouncer.log"
        self._file.write_text(
            f"[databases]\n* = host={server.folder} user=sendback\n"
            "[pgbouncer]\npool_mode = transaction\nauth_type = any\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir =\ndefault_pool_size = 1\n"
            f"query_wait_timeout = 30\n{'user = postgres' if os.geteuid() == 0 else ''}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_installed() -> bool:
        return _program() is not None

    def url(self, direct: str) -> str:
        """The URL of a database of the server, by way of this pooler."""
        return f"postgresql://sendback@127.0.0.1:{self.port}{urlsplit(direct).path}"

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(_program()), str(self._file)], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError(self._log.read_text()) from None
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(10)


def _program() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
