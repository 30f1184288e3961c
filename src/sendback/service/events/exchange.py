"""Events between the processes of an installation, by the store's channel.

Theory of operation. A process that has a subscriber announces itself to the others every few
seconds, and at once when a subscription begins. They send it their events until its announcement is
out of date: first those that they keep and that it can need, then each new one. So events that
have no subscriber are not sent. A command sends its few events to all: it ends before it could
receive an announcement.

An announcement is `{"after": ID, "now": ID, "begins": bool}`: behind which event the subscriptions
begin, what ID an event of this moment would have (see `bus`), and whether one has just begun.
"""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sendback.service.events.bus import EventBus
from sendback.service.events.model import Event, event_from_dict
from sendback.store.engine.channels import Channel

_ANNOUNCEMENT = "listen"
_EVENT = "event"
_COMMAND = "command"  # an event that all keep
_ANNOUNCE_SECONDS = 2.0
_LISTENS_SECONDS = 3 * _ANNOUNCE_SECONDS
_FORGET_SECONDS = 3600.0
_MOST_PEERS = 1000


@dataclass(slots=True)
class _Peer:
    """A process that has subscribers until then, and the last event that was sent to it."""

    until: float
    sent: int


class EventExchange:
    """The exchange of one process. Use it on the event loop's thread."""

    def __init__(self, bus: EventBus, channel: Channel) -> None:
        self._bus = bus
        self._channel = channel
        self._octets = channel.capacity(_COMMAND)
        self._peers: dict[str, _Peer] = {}
        self._loop: asyncio.AbstractEventLoop
        self._announcing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send events to the processes that announce themselves, and announce this one."""
        self._loop = asyncio.get_running_loop()
        self._channel.handle(_ANNOUNCEMENT, self._announced)
        self._channel.handle(_EVENT, self._take)
        self._channel.handle(_COMMAND, self._keep)
        self._bus.connect(self._forward, self._subscribed)
        self._announcing = asyncio.create_task(self._announce_always())

    def send_all(self) -> None:
        """Send every event to all processes: what a command does."""
        self._bus.connect(
            lambda event: self._channel.send(_COMMAND, event.to_json(self._octets)),
            lambda _after: None,
        )

    def close(self) -> None:
        if self._announcing is not None:
            self._announcing.cancel()
        self._peers.clear()

    # --- this process's subscribers -------------------------------------------------------

    async def _announce_always(self) -> None:
        while True:
            after = self._bus.followed_after()
            if after is not None:
                self._announce(after, begins=False)
            await asyncio.sleep(_ANNOUNCE_SECONDS)

    def _subscribed(self, after: int) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(lambda: self._announce(after, begins=True))

    def _announce(self, after: int, *, begins: bool) -> None:
        value = {"after": after, "now": self._bus.now(), "begins": begins}
        self._channel.send(_ANNOUNCEMENT, json.dumps(value))

    def _take(self, sender: str, text: str) -> None:
        if self._bus.has_subscribers:  # else it is for others: NOTIFY reaches all
            self._keep(sender, text)

    def _keep(self, _sender: str, text: str) -> None:
        self._bus.accept(event_from_dict(_object(text)))

    # --- the others' ----------------------------------------------------------------------

    def _announced(self, sender: str, text: str) -> None:
        value = _object(text)
        after, its_now = value.get("after"), value.get("now")
        if not (isinstance(after, int) and isinstance(its_now, int)):
            raise ValueError("an announcement has two IDs")  # noqa: TRY004 - as for other texts
        self._bus.observe(its_now)
        now = self._loop.time()
        self._forget_peers(now)
        peer = self._peers.setdefault(sender, _Peer(now, 0))
        is_new = peer.until <= now
        peer.until = now + _LISTENS_SECONDS
        if value.get("begins"):
            begin = after  # it may want what was sent before
        elif is_new:
            begin = max(after, peer.sent)
        else:
            return
        for event in self._bus.kept(begin, own=True):
            self._send(event, [sender])

    def _forget_peers(self, now: float) -> None:
        old = [name for name, peer in self._peers.items() if peer.until + _FORGET_SECONDS < now]
        for name in old:
            del self._peers[name]
        while len(self._peers) >= _MOST_PEERS:
            self._peers.pop(next(iter(self._peers)))

    def _forward(self, event: Event) -> None:
        """Send an event to the processes that listen; called by the bus, in any thread."""
        if self._peers:
            self._loop.call_soon_threadsafe(self._send_to_listeners, event)

    def _send_to_listeners(self, event: Event) -> None:
        now = self._loop.time()
        listening = [name for name, peer in self._peers.items() if peer.until > now]
        if listening:
            self._send(event, listening)

    def _send(self, event: Event, to: list[str]) -> None:
        self._channel.send(_EVENT, event.to_json(self._octets), to)
        for name in to:
            self._peers[name].sent = max(self._peers[name].sent, event.id)


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("the text is no object")  # noqa: TRY004 - as for other texts
    return value
