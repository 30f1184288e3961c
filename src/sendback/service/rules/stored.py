"""The content of stored messages."""

from sendback.service.rules.content import Content
from sendback.store.engine.store import Store
from sendback.store.messages.messages import Body, ReceivedMessage


async def content_of(store: Store, message: ReceivedMessage, body: Body) -> Content:
    """Return a message with its body. Raises `StoreUnavailableError`."""
    size = message.size - len(message.header)
    if body.blob is None:
        return Content(message.header, body.inline or b"", size)
    return Content(message.header, await store.contents.body(body.blob, size), size)
