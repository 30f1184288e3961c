"""`/_sendback/events`: what happens, as server-sent events.

WHATWG HTML, "Server-sent events". A reader that comes back with `Last-Event-ID` gets what it
missed, as far as it is kept.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from sendback.inspection.calls import Call
from sendback.inspection.errors import bad_parameter
from sendback.inspection.services import InspectionServices
from sendback.service.events.bus import Subscription
from sendback.service.events.model import EventKind

_KEEP_ALIVE_SECONDS = 15.0
_RETRY_MILLISECONDS = 1000
_KINDS = [kind.value for kind in EventKind]
_LAST = 2**63


async def follow(call: Call, services: InspectionServices) -> Response:
    """Return the stream of events."""
    kinds = [_kind(text) for text in filter(None, (call.text("kind") or "").split(","))]
    account_id = await services.account(call) if call.text("account") else None
    after = _after(call)
    return _Stream(services, kinds, account_id, after)


class _Stream(StreamingResponse):
    """The answer that ends when the reader is gone, or the server stops."""

    def __init__(
        self,
        services: InspectionServices,
        kinds: Sequence[EventKind],
        account_id: str | None,
        after: int | None,
    ) -> None:
        self._ending = ExitStack()
        self._ending.enter_context(services.waiting.place())
        subscription = services.events.subscribe(kinds, account_id=account_id, after=after)
        self._ending.callback(subscription.close)
        headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        super().__init__(_chunks(subscription), headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._ending:
            await super().__call__(scope, receive, send)


async def _chunks(subscription: Subscription) -> AsyncIterator[bytes]:
    yield f": events follow\nretry: {_RETRY_MILLISECONDS}\n\n".encode()
    while not subscription.is_closed:
        batch = await subscription.next(_KEEP_ALIVE_SECONDS)
        if batch.lost:
            yield f"event: lost\ndata: {json.dumps({'lost': batch.lost})}\n\n".encode()
        if batch.events:
            yield "".join(
                f"id: {event.id}\nevent: {event.kind}\ndata: {event.to_json()}\n\n"
                for event in batch.events
            ).encode()
        elif not subscription.is_closed:
            yield b": nothing new\n\n"


def _kind(text: str) -> EventKind:
    if text not in _KINDS:
        raise bad_parameter("kind", f"it must be some of {', '.join(_KINDS)}")
    return EventKind(text)


def _after(call: Call) -> int | None:
    text = call.request.headers.get("last-event-id") or call.text("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or int(text[:20]) >= _LAST:
        raise bad_parameter("after", "it must be the ID of an event")
    return int(text)
