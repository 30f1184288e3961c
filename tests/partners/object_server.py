"""moto's S3 as the object store of contents, and a proxy before it that injects faults."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import boto3

from tests.partners.postfix import free_port
from tests.partners.waiting import wait_for

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
BUCKET = "contents"


class ObjectServer:
    """moto's server with a bucket; its URLs are values of `content_store`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with (self._folder / "moto.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-p", str(self.port)], stdout=log, stderr=log
            )
        wait_for(lambda: _listens(self.port), 60)
        self.client().create_bucket(Bucket=BUCKET)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def url(self, prefix: str, port: int | None = None, bucket: str = BUCKET) -> str:
        """The URL of a prefix of the bucket; the credentials are not in it."""
        endpoint = f"http://127.0.0.1:{port or self.port}"
        return f"s3://{bucket}/{prefix}?endpoint={endpoint}&region=us-east-1"

    def keys(self, prefix: str) -> list[str]:
        """The names of the objects under a prefix."""
        found = self.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
        return [entry["Key"].removeprefix(f"{prefix}/") for entry in found.get("Contents", ())]


class FaultyProxy:
    """Passes HTTP on to a server; while a fault is set, requests with its method get that.

    `status` is answered at once; `hold` keeps the response back until `release`, so that the
    request has taken effect and its client does not know; `refuse` closes connections.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._status = 0
        self._methods: frozenset[str] = frozenset()
        self._refuses = False
        self.held = threading.Event()
        self._released = threading.Event()
        self._released.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def status(self, code: int, *methods: str) -> Any:
        self._status, self._methods = code, frozenset(methods)
        try:
            yield
        finally:
            self._status = 0

    @contextmanager
    def refuse(self) -> Any:
        self._refuses = True
        try:
            yield
        finally:
            self._refuses = False

    @contextmanager
    def hold(self, *methods: str) -> Any:
        self._methods = frozenset(methods)
        self.held.clear()
        self._released.clear()
        try:
            yield
        finally:
            self._released.set()

    def close(self) -> None:
        self._released.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while not self._refuses and (head := _head(client)):
                self._exchange(client, head)

    def _exchange(self, client: socket.socket, head: bytes) -> None:
        method = head.split(b" ", 1)[0].decode()
        body = _exactly(client, _length(head))
        if self._status and method in self._methods:
            reason = b"<Error><Code>Fault</Code><Message>injected</Message></Error>"
            client.sendall(
                b"HTTP/1.1 %d Fault\r\nContent-Length: %d\r\n\r\n%s"
                % (self._status, len(reason), b"" if method == "HEAD" else reason)
            )
            return
        with socket.create_connection(("127.0.0.1", self._server_port)) as server:
            lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connec")]
            lines.insert(1, b"Connection: close")
            server.sendall(b"\r\n".join(lines) + body)
            answer = b"".join(iter(lambda: server.recv(65536), b""))
        if not self._released.is_set() and method in self._methods:
            self.held.set()
            self._released.wait(60)
        first, _, rest = answer.partition(b"\r\n")
        client.sendall(first + b"\r\n" + rest.replace(b"Connection: close\r\n", b"", 1))


def _head(client: socket.socket) -> bytes:
    """A header section with its empty line; empty at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        octet = client.recv(1)
        if not octet:
            return b""
        head += octet
    return head


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


def _exactly(client: socket.socket, size: int) -> bytes:
    pieces = []
    while size:
        piece = client.recv(min(size, 65536))
        if not piece:
            raise OSError("the client has gone")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            return True
    time.sleep(0.1)
    return False
