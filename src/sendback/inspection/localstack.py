"""`/_aws/ses`: sent mail in the form of LocalStack, for tests that were written for it.

What is sent here is the mail in the outbox: bounces and verification mails.
"""

import asyncio
from contextlib import aclosing
from email import message_from_bytes
from email.policy import default
from typing import Any

from starlette.responses import Response

from sendback.inspection.answers import answer, empty
from sendback.inspection.calls import Call
from sendback.inspection.messages import path_key
from sendback.inspection.services import InspectionServices
from sendback.inspection.shown import subject_of
from sendback.store.outbox.control import Selection
from sendback.store.outbox.rows import OutboxMessage

_MOST = 1000


async def sent(call: Call, services: InspectionServices) -> Response:
    """List sent mail: all, that of an ID, or that from an address."""
    selection = Selection(
        await services.account(call),
        message_ids=(call.parameters["id"],) if call.text("id") else (),
    )
    email = call.text("email")
    found: list[dict[str, Any]] = []
    scan = services.mail.outgoing(selection, "", only_bounces=False)
    async with aclosing(scan):  # type: ignore[type-var]
        async for message in scan:
            if email is None or path_key(email) == path_key(message.sender or ""):
                found.append(await asyncio.to_thread(_shown, message, services.region))
            if len(found) == _MOST:
                break
    return answer({"messages": found})


async def delete(call: Call, services: InspectionServices) -> Response:
    """Forget sent mail that is not queued."""
    await services.mail.delete_outgoing(await services.account(call), call.text("id"))
    return empty()


def _shown(message: OutboxMessage, region: str) -> dict[str, Any]:
    header = message.content.partition(b"\r\n\r\n")[0] + b"\r\n"
    return {
        "Id": message.message_id,
        "Region": region,
        "Timestamp": message.created_at.isoformat(timespec="seconds").removesuffix("+00:00"),
        "Source": message.sender,
        "Destination": {"ToAddresses": [str(message.recipient)]},
        "Subject": subject_of(header),
        "Body": _body(message.content),
        "RawData": message.content.decode("utf-8", "replace"),
    }


def _body(content: bytes) -> dict[str, str | None]:
    """Return the text and the HTML of a mail that this server wrote."""
    parsed = message_from_bytes(content, policy=default)
    texts: dict[str, str | None] = {"text_part": None, "html_part": None}
    for name, kind in (("text_part", "plain"), ("html_part", "html")):
        part = parsed.get_body((kind,))
        if part is not None:
            texts[name] = part.get_content()
    return texts
