"""Live lists: server-sent events with the rows that have changed, as HTML.

A list is told about its new rows some milliseconds after they happened, however many there are: the
events of a moment are collected, and each row is read and rendered once. `static/console.js`
replaces the row with the same ID, or puts a new one on top.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sendback.console.call import PageCall
from sendback.console.errors import PageError
from sendback.service.events.bus import Batch, Subscription
from sendback.service.events.model import Event, EventKind
from sendback.store.engine.errors import StoreUnavailableError

# Returns the rows of these events, as HTML: elements with IDs.
Rows = Callable[[Sequence[Event]], Awaitable[str]]

MAX_STREAMS = 100  # of a process: each has a connection
_PAUSE_SECONDS = 0.1
_KEEP_ALIVE_SECONDS = 15.0
_RETRY_MILLISECONDS = 1000
# With more events in one pause, the page is read again instead.
_MAX_EVENTS = 100

_open: set[Subscription] = set()


def stream(call: PageCall, kinds: Collection[EventKind], rows: Rows) -> Response:
    """Return the stream of a list. Raise `PageError` when too many are open."""
    if len(_open) >= MAX_STREAMS:
        raise PageError(503, "Too many pages are live", "Close some, or look again later.")
    subscription = call.services.events.subscribe(kinds, account_id=call.account_id)
    return _Stream(subscription, rows)


class _Stream(StreamingResponse):
    """The response that ends when the page is closed, or the server stops."""

    def __init__(self, subscription: Subscription, rows: Rows) -> None:
        self._ending = ExitStack()
        _open.add(subscription)
        self._ending.callback(_open.discard, subscription)
        self._ending.callback(subscription.close)
        super().__init__(_chunks(subscription, rows), media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._ending:
            await super().__call__(scope, receive, send)


async def _chunks(subscription: Subscription, rows: Rows) -> AsyncIterator[bytes]:
    yield f": rows follow\nretry: {_RETRY_MILLISECONDS}\n\n".encode()
    while not subscription.is_closed:
        batch = await subscription.next(_KEEP_ALIVE_SECONDS)
        if batch.events or batch.lost:
            yield await _rows(batch, rows)
            await asyncio.sleep(_PAUSE_SECONDS)
        elif not subscription.is_closed:
            yield b": nothing new\n\n"


async def _rows(batch: Batch, rows: Rows) -> bytes:
    if batch.lost or len(batch.events) > _MAX_EVENTS:
        return b"event: reload\ndata: \n\n"
    try:
        html = await rows(batch.events)
    except StoreUnavailableError:
        return b"event: reload\ndata: \n\n"
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: rows\n{lines}\n".encode() if lines else b": nothing for this list\n\n"
