"""Received mail: the list, and one message with what happened to it."""

from typing import Any

from starlette.responses import Response

from sendback.console.call import Page, PageCall
from sendback.console.timeline import timeline
from sendback.mail.encoded_words import decode_words
from sendback.mail.headers import field_values
from sendback.store.messages.messages import ReceivedMessage
from sendback.store.outbox.control import Selection

_SHOWN = 50


async def list_mail(call: PageCall) -> Response:
    """Show the newest messages, and beside them nothing yet."""
    call.permit("sendback:ReadMail")
    return call.page("mail/list.html", rows=await _rows(call), shown=None)


async def show_message(call: PageCall) -> Response:
    """Show a message beside the list; for htmx, the message alone."""
    call.permit("sendback:ReadMail")
    shown = await call.services.messages.find(call.account_id, call.path["id"])
    selection = Selection(call.account_id, original_message_id=shown.message.message_id)
    bounces = await call.services.outbox.list(selection, _SHOWN)
    found = [await call.services.outbox.find(call.account_id, b.message_id) for b in bounces]
    context: dict[str, Any] = {
        "shown": shown,
        "subject": subject_of(shown.message),
        "events": timeline(shown, found),
    }
    if call.target == "detail":
        return call.page("mail/message.html", **context)
    return call.page("mail/list.html", rows=await _rows(call), **context)


async def _rows(call: PageCall) -> list[dict[str, object]]:
    found = await call.services.messages.list(call.account_id, _SHOWN, None)
    return [
        {"message": message, "subject": subject_of(message), "state": state}
        for message, state in found
    ]


def subject_of(message: ReceivedMessage) -> str:
    """Return the subject as a mail client shows it."""
    found = field_values(message.header, "Subject")
    return decode_words(found[0].decode("utf-8", "replace")).strip() if found else ""


PAGES = (
    Page("GET", "/mail", list_mail),
    Page("GET", "/mail/{id}", show_message),
)
