"""`/_sendback/bounces`: the bounces in the outbox, with their attempts and reports."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from starlette.responses import Response

from sendback.inspection.answers import answer, raw_message
from sendback.inspection.calls import Call
from sendback.inspection.errors import not_found
from sendback.inspection.messages import path_key
from sendback.inspection.services import InspectionServices
from sendback.inspection.shown import bounce_row, dsn_of, whole_bounce
from sendback.service.rules.content import Content
from sendback.store.engine.errors import NotFoundError
from sendback.store.outbox.control import Selection
from sendback.store.outbox.rows import Attempt, OutboxMessage


async def list_bounces(call: Call, services: InspectionServices) -> Response:
    """List bounces in the order in which they were queued, behind `after`."""
    limit = call.limit()
    selection = Selection(
        await services.account(call), original_message_id=call.text("original") or ""
    )

    async def read() -> Sequence[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        after = call.text("after") or ""
        scan = services.mail.outgoing(selection, after, only_bounces=True)
        async with aclosing(scan):  # type: ignore[type-var]
            async for message in scan:
                dsn = await asyncio.to_thread(dsn_of, message)
                if _matches(message, dsn, call):
                    found.append({**bounce_row(message), "dsn": dsn})
                if len(found) == limit:
                    break
        return found

    disconnected = call.request.is_disconnected
    found = await services.waiting.until_any(read, call.wait_seconds(), disconnected)
    following = found[-1]["message_id"] if len(found) == limit else None
    return answer({"bounces": found, "next": following})


def _matches(message: OutboxMessage, dsn: dict[str, Any] | None, call: Call) -> bool:
    to, recipient = call.text("to"), call.text("recipient")
    if to is not None and path_key(to) != message.recipient.key:
        return False
    if recipient is None:
        return True
    entries = dsn["recipients"] if dsn else []
    return path_key(recipient) in {path_key(e["final_recipient"]) for e in entries}


async def show_bounce(call: Call, services: InspectionServices) -> Response:
    """Show a bounce with its attempts and its report."""
    return answer(whole_bounce(*await _find(call, services)))


async def raw(call: Call, services: InspectionServices) -> Response:
    """Return a bounce as it is sent."""
    message, _ = await _find(call, services)
    content = Content(b"", message.content, len(message.content))
    return await raw_message(content, message.message_id)


async def _find(
    call: Call, services: InspectionServices
) -> tuple[OutboxMessage, Sequence[Attempt]]:
    try:
        return await services.mail.find_outgoing(await services.account(call), call.path["id"])
    except NotFoundError as error:
        raise not_found(str(error)) from None
