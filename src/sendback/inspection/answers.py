"""The answers of the API."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from starlette.responses import Response, StreamingResponse

from sendback.service.rules.content import Content

# No answer is to be kept, or taken for a page.
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer in JSON."""
    content = json.dumps(value, default=_json, separators=(",", ":")).encode()
    return Response(content, status, {**_HEADERS, **(headers or {})}, "application/json")


def empty() -> Response:
    """Return the answer to a deletion."""
    return Response(status_code=204, headers=_HEADERS)


async def raw_message(content: Content, name: str) -> Response:
    """Return a message as a file to save: its content is not to be trusted by a browser.

    It is sent piece by piece. Raises what reading the first piece raises.
    """
    disposition = f'attachment; filename="{name}.eml"'
    length = str(content.size)
    headers = {**_HEADERS, "Content-Disposition": disposition, "Content-Length": length}
    pieces = content.stream()
    first = await anext(pieces, b"")

    async def body() -> AsyncIterator[bytes]:
        async with aclosing(pieces):
            yield first
            async for piece in pieces:
                yield piece

    return StreamingResponse(body(), 200, headers, "message/rfc822")


def _json(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
