"""Events between the workers of a server, by datagram sockets in the data directory.

Theory of operation. Each worker has a socket, `events/<process>-<random>.sock`. A worker that has a
subscriber announces itself to the others every few seconds, with the ID of the last event that it
knows; they send it what is behind that, and each new event, until its announcement is out of date.
So events that nobody follows cost no system call.

Sending never blocks. What the kernel does not take at once waits in a queue with a bound; when a
worker does not read, its oldest events are lost. What arrives is not trusted: datagrams are
bounded, and one that is not ours is ignored. Only this user can write to the directory.
"""

import asyncio
import json
import logging
import os
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sendback.log_limits import LogLimiter
from sendback.service.events.bus import EventBus
from sendback.service.events.model import MAX_OCTETS, Event, event_from_dict

log = logging.getLogger(__name__)

FOLDER = "events"
_MAX_DATAGRAM = MAX_OCTETS + 1024
_ANNOUNCE_SECONDS = 2.0
_LISTENS_SECONDS = 3 * _ANNOUNCE_SECONDS
_PENDING = 1000
_READ_AT_ONCE = 50
_RETRY_SECONDS = 0.005


@dataclass(slots=True)
class _Peer:
    """Another worker that has subscribers, and the events that wait to be sent to it."""

    until: float
    pending: deque[str] = field(default_factory=lambda: deque(maxlen=_PENDING))
    timer: asyncio.TimerHandle | None = None


class EventExchange:
    """The socket of one worker. Use it on the event loop's thread."""

    def __init__(self, bus: EventBus, data_dir: Path) -> None:
        self._bus = bus
        self._folder = data_dir / FOLDER
        self._name = f"{os.getpid()}-{os.urandom(4).hex()}.sock"
        self._peers: dict[str, _Peer] = {}
        self._limiter = LogLimiter()
        self._loop: asyncio.AbstractEventLoop
        self._socket: socket.socket | None = None
        self._directory = -1
        self._announcing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Open the socket. Without one, this worker's subscribers see its own events only."""
        self._loop = asyncio.get_running_loop()
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._directory = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.bind(self._address(self._name))
            (self._folder / self._name).chmod(0o600)
        except OSError as error:
            log.warning("events of other workers cannot be followed: %s", error)
            self.close()
            return
        self._remove_stale()
        self._loop.add_reader(self._socket.fileno(), self._read)
        self._bus.connect(self._forward, self._wake)
        self._announcing = asyncio.create_task(self._announce_always())

    def close(self) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
        for peer in self._peers.values():
            if peer.timer is not None:
                peer.timer.cancel()
        self._peers.clear()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            with suppress(OSError):
                (self._folder / self._name).unlink()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _address(self, name: str) -> str:
        """Return a path of at most 107 octets, however long that of the data directory is."""
        return f"/proc/self/fd/{self._directory}/{name}"

    # --- announcing -----------------------------------------------------------------------

    async def _announce_always(self) -> None:
        while True:
            if self._bus.has_subscribers:
                self._announce()
            await asyncio.sleep(_ANNOUNCE_SECONDS)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        message = json.dumps({"listener": self._name}).encode()
        for name in self._others():
            self._send(name, message)

    def _others(self) -> Iterator[str]:
        with suppress(OSError):
            for path in self._folder.iterdir():
                if path.suffix == ".sock" and path.name != self._name:
                    yield path.name

    def _remove_stale(self) -> None:
        """Delete the sockets of workers that ended without deleting them."""
        for name in self._others():
            self._send(name, b"{}")

    def _send(self, name: str, message: bytes) -> bool | None:
        """Send a datagram; return None if it has to wait, False if nobody reads the socket."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(message, self._address(name))
        except BlockingIOError:
            return None
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(OSError):
                (self._folder / name).unlink()
            return False
        except OSError as error:
            self._warn(error)
            return False
        return True

    # --- sending --------------------------------------------------------------------------

    def _forward(self, event: Event) -> None:
        """Queue an event for the workers that listen; called by the bus, in any thread."""
        if self._peers:
            self._loop.call_soon_threadsafe(self._queue, event)

    def _queue(self, event: Event) -> None:
        text = event.to_json()
        for name, peer in list(self._peers.items()):
            peer.pending.append(text)
            self._flush(name, peer)

    def _flush(self, name: str, peer: _Peer) -> None:
        if peer.timer is not None:
            return
        if peer.until < self._loop.time():
            self._peers.pop(name, None)
            return
        while peer.pending:
            sent = self._send(name, peer.pending[0].encode())
            if sent is None:
                peer.timer = self._loop.call_later(_RETRY_SECONDS, self._retry, name, peer)
                return
            if not sent:
                self._peers.pop(name, None)
                return
            peer.pending.popleft()

    def _retry(self, name: str, peer: _Peer) -> None:
        peer.timer = None
        self._flush(name, peer)

    # --- reading --------------------------------------------------------------------------

    def _read(self) -> None:
        for _ in range(_READ_AT_ONCE):  # then others
            if self._socket is None:
                return
            try:
                message = self._socket.recv(_MAX_DATAGRAM + 1)
            except BlockingIOError:
                return
            except OSError as error:
                self._warn(error)
                return
            try:
                self._take(message)
            except (ValueError, RecursionError, OverflowError) as error:
                self._warn(error)

    def _take(self, message: bytes) -> None:
        if len(message) > _MAX_DATAGRAM:
            raise ValueError("the datagram is too large")
        value: Any = json.loads(message)
        if not isinstance(value, dict):
            raise ValueError("the datagram is no object")  # noqa: TRY004 - as for other malformed ones
        if not value:  # from a worker that looks who is there
            return
        if "listener" in value:
            self._listen(value["listener"])
        else:
            self._bus.accept(event_from_dict(value))

    def _listen(self, name: Any) -> None:
        """Send events to a worker from now on; a new one gets first those that are kept."""
        if not isinstance(name, str) or name not in set(self._others()):
            raise ValueError(f"there is no worker {name!r:.100}")
        until = self._loop.time() + _LISTENS_SECONDS
        peer = self._peers.get(name)
        if peer is not None:
            peer.until = until
            return
        self._peers[name] = peer = _Peer(until)
        peer.pending.extend(event.to_json() for event in self._bus.kept())
        self._flush(name, peer)

    def _warn(self, error: Exception) -> None:
        more = self._limiter.check("events", self._loop.time())
        if more is not None:
            log.warning("events_not_exchanged reason=%r%s", str(error)[:200], more)
