"""Messages between the processes of a data directory, by datagram sockets in it.

Theory of operation. Each process that receives has a socket, `sockets/<name>.sock`. Sending never
blocks: what the kernel does not take at once waits in a queue with a bound, whose oldest messages
are lost. Only this user can write to the directory.
"""

import asyncio
import logging
import os
import socket
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sendback.store.engine.channels import Channel

log = logging.getLogger(__name__)

FOLDER = "sockets"
_MAX_DATAGRAM = 34 * 1024
_SUFFIX = ".sock"
_PENDING = 1000
_READ_AT_ONCE = 50
_RETRY_SECONDS = 0.005


@dataclass(slots=True)
class _Peer:
    """What waits to be sent to another process."""

    pending: deque[bytes] = field(default_factory=lambda: deque(maxlen=_PENDING))
    timer: asyncio.TimerHandle | None = None


class Datagrams(Channel):
    """The socket of one process."""

    def __init__(self, data_dir: Path, name: str) -> None:
        super().__init__(name, _MAX_DATAGRAM)
        self._folder = data_dir / FOLDER
        self._peers: dict[str, _Peer] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: socket.socket | None = None
        self._directory = -1
        self._is_closed = False

    def start(self) -> None:
        """Open the socket. Without one, this process polls and gets no events of others."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            opened = self._open()
            opened.bind(self._address(self.name))
            (self._folder / f"{self.name}{_SUFFIX}").chmod(0o600)
        except OSError as error:
            log.warning("other processes cannot reach this one, which polls: %s", error)
            self.close()
            return
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(opened.fileno(), self._read)
        for name in self._others():
            self._send(name, b"")  # deletes the sockets of processes that were killed

    def hint(self, subject: str, text: str) -> None:
        message = self.message(subject, text).encode()
        with suppress(OSError):  # there is no directory, so no process receives
            self._open()
            for name in self._others():
                self._send(name, message)

    def send(self, subject: str, text: str, to: Collection[str] | None = None) -> None:
        if self._loop is None:
            self.hint(subject, text)
            return
        message = self.message(subject, text).encode()
        for name in self._others() if to is None else to:
            peer = self._peers.setdefault(name, _Peer())
            peer.pending.append(message)
            self._flush(name, peer)

    async def drain(self) -> None:
        """Do nothing: datagrams are on their way once they are sent."""

    def close(self) -> None:
        self._is_closed = True
        for peer in self._peers.values():
            if peer.timer is not None:
                peer.timer.cancel()
        self._peers.clear()
        opened, self._socket = self._socket, None
        if opened is not None:
            if self._loop is not None:
                self._loop.remove_reader(opened.fileno())
                with suppress(OSError):
                    (self._folder / f"{self.name}{_SUFFIX}").unlink()
            opened.close()
        self._loop = None
        directory, self._directory = self._directory, -1
        if directory >= 0:
            os.close(directory)

    def _open(self) -> socket.socket:
        """Return the socket; a process that does not receive has one without a name."""
        if self._is_closed:
            raise OSError("the channel is closed")
        if self._socket is None:
            self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        return self._socket

    def _address(self, name: str) -> str:
        """Return a path of at most 107 octets, however long that of the data directory is."""
        return f"/proc/self/fd/{self._directory}/{name}{_SUFFIX}"

    def _others(self) -> Iterator[str]:
        with suppress(OSError):
            for path in self._folder.iterdir():
                if path.suffix == _SUFFIX and path.stem != self.name:
                    yield path.stem

    def _send(self, name: str, message: bytes) -> bool | None:
        """Send a datagram; return None if it has to wait, False if no process reads the socket."""
        opened = self._socket
        if opened is None:
            return False
        try:
            opened.sendto(message, self._address(name))
        except BlockingIOError:
            return None
        except ConnectionRefusedError:  # its process ended without deleting it
            with suppress(OSError):
                (self._folder / f"{name}{_SUFFIX}").unlink()
            return False
        except FileNotFoundError:
            return False
        except OSError as error:
            self._ignore(str(error))
            return False
        return True

    def _flush(self, name: str, peer: _Peer) -> None:
        if peer.timer is not None or self._loop is None:
            return
        while peer.pending:
            sent = self._send(name, peer.pending[0])
            if sent is None:
                peer.timer = self._loop.call_later(_RETRY_SECONDS, self._retry, name, peer)
                return
            if not sent:
                break
            peer.pending.popleft()
        self._peers.pop(name, None)

    def _retry(self, name: str, peer: _Peer) -> None:
        peer.timer = None
        self._flush(name, peer)

    def _read(self) -> None:
        for _ in range(_READ_AT_ONCE):  # then others
            if self._socket is None:
                return
            try:
                message = self._socket.recv(_MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._ignore(str(error))
                return
            if len(message) > _MAX_DATAGRAM:
                self._ignore("the datagram is too large")
            elif message:
                self._dispatch(message.decode(errors="replace"))
