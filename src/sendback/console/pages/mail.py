"""Received mail: the list, and one message with what happened to it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.responses import HTMLResponse, Response, StreamingResponse

from sendback.console import live
from sendback.console.authentication import explained
from sendback.console.call import Page, PageCall, segment
from sendback.console.errors import PageError, not_found
from sendback.console.mail_parts import MAX_READ, ShownMail, harmless, part_content, read_mail
from sendback.console.rendering import render
from sendback.console.search import (
    STATES,
    MailSearch,
    SearchError,
    date_of_id,
    parse_search,
    row_state,
    subject_of,
)
from sendback.console.timeline import timeline
from sendback.mail.headers import header_fields, split_trace
from sendback.receipt.verdicts import verdicts_from_json
from sendback.service.events.model import Event, EventKind
from sendback.service.queues.control import AmbiguousIdError, WrongStateError
from sendback.service.rules.content import Content, ContentGoneError
from sendback.service.rules.control import ShownMessage
from sendback.store.messages.search import FindMailRows, MailRow, SearchMessages
from sendback.store.outbox.control import Selection
from sendback.store.rules.processing import ProcessingState

_SHOWN = 50
_SCANNED = 4000  # messages for each step of a search: some 30 ms
_MAX_BOUNCES = 20
_MAX_FIELDS = 500
_MAX_SOURCE = 256 * 1024
_TABS = ("text", "html", "headers", "parts", "source")
_CHIPS = (
    ("All", ""),
    ("Bounced", "state:bounced"),
    ("Rule failed", "state:failed"),
    ("Held", "state:held"),
    ("DMARC fail", "verdict:dmarc-fail"),
)
_FRAME_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox"
)
_PERMISSION = "sendback:ReadMail"


async def list_mail(call: PageCall) -> Response:
    """Show the messages that match the search, the newest first."""
    call.permit(_PERMISSION)
    context = await _list(call)
    if call.target == "more":
        return call.page("mail/rows.html", shown=None, **context)
    return call.page("mail/list.html", shown=None, **context)


async def follow(call: PageCall) -> Response:
    """Return the stream of rows that are new or have changed."""
    call.permit(_PERMISSION)
    try:
        search = parse_search(call.text("q"))
    except SearchError as error:
        raise PageError(400, "This is no search", str(error)) from None

    async def rows(events: Sequence[Event]) -> str:
        ids = tuple(dict.fromkeys(key for event in events if (key := _message_of(event))))
        new = {event.message_id for event in events if event.kind is EventKind.RECEIVED}
        found = await call.services.store.read(FindMailRows(call.account_id, ids))
        return "".join(
            _rendered(row, search, is_new=row.message.message_id in new) for row in reversed(found)
        )

    kinds = (EventKind.RECEIVED, EventKind.STEP, EventKind.BOUNCE, EventKind.ATTEMPT)
    return live.stream(call, kinds, rows)


async def show_message(call: PageCall) -> Response:
    """Show a message beside the list; for htmx, the message alone."""
    call.permit(_PERMISSION)
    shown = await _find(call)
    context = await _message(call, shown)
    if call.target == "detail":
        return call.page("mail/message.html", **context)
    return call.page("mail/list.html", **await _list(call), **context)


async def html(call: PageCall) -> Response:
    """Return the HTML of a message for its frame: no scripts, nothing from other servers."""
    call.permit(_PERMISSION)
    mail = await _read(await _find(call))
    cleaned, _ = await asyncio.to_thread(harmless, mail.html or "")
    page = f'<!doctype html><meta charset="utf-8"><title>Mail</title>{cleaned}'
    return HTMLResponse(page, headers={"Content-Security-Policy": _FRAME_POLICY})


async def raw(call: PageCall) -> Response:
    """Return a message as a file."""
    call.permit(_PERMISSION)
    shown = await _find(call)
    content = _content(shown)
    name = f"{shown.message.message_id}.eml"
    headers = {**_as_file(name), "Content-Length": str(content.size)}
    return StreamingResponse(
        content.stream(), headers=headers, media_type="application/octet-stream"
    )


async def part(call: PageCall) -> Response:
    """Return a part of a message as a file."""
    call.permit(_PERMISSION)
    number = call.path["number"]
    if not (number.isascii() and number.isdigit()) or len(number) > 6:  # noqa: PLR2004
        raise not_found("part")
    beginning, _ = await _beginning(_content(await _find(call)))
    found = await asyncio.to_thread(part_content, beginning, int(number))
    if found is None:
        raise not_found("part")
    name, octets = found
    return Response(octets, headers=_as_file(name), media_type="application/octet-stream")


async def change(call: PageCall) -> Response:
    """Delete a message, or retry or drop its processing."""
    call.permit("sendback:ChangeMail")
    message_id, what = call.path["id"], call.form.text("do")
    messages = call.services.messages
    try:
        if what == "delete":
            await call.services.mail.delete_message(call.account_id, message_id)
            return call.go("/mail", note=f"Message {message_id} was deleted.")
        if what == "retry":
            await messages.retry(call.account_id, [message_id], lambda _: None)
            note = f"Message {message_id} is processed again."
        elif what == "drop":
            await messages.drop(call.account_id, [message_id], None, lambda _: None)
            note = f"The rules of message {message_id} were ended."
        else:
            raise PageError(400, "There is no such change", "Use the buttons of the page.")
    except WrongStateError as error:
        raise PageError(409, "This cannot be done now", str(error)) from None
    return call.go(f"/mail/{segment(message_id)}", note=note)


async def _list(call: PageCall) -> dict[str, Any]:
    text = call.text("q")
    context: dict[str, Any] = {"q": text, "chips": _CHIPS, "states": STATES, "problem": ""}
    try:
        search = parse_search(text)
    except SearchError as error:
        return {**context, "problem": str(error), "rows": [], "more": "", "searched_to": None}
    before = call.text("before") or search.before
    unit = SearchMessages(
        call.account_id,
        before,
        search.since,
        search.conditions,
        search.accepts,
        _SHOWN,
        _SCANNED,
    )
    found = await call.services.store.read(unit)
    more = found.searched_to or ""
    full = len(found.rows) >= _SHOWN
    return {
        **context,
        "rows": [_shown_row(row) for row in found.rows],
        "more": more,
        "searched_to": date_of_id(more) if more and not full else None,
    }


async def _message(call: PageCall, shown: ShownMessage) -> dict[str, Any]:
    message = shown.message
    selection = Selection(call.account_id, original_message_id=message.message_id)
    outbox = call.services.outbox
    bounces = await outbox.list(selection, _MAX_BOUNCES)
    found = [await outbox.find(call.account_id, bounce.message_id) for bounce in bounces]
    entry = shown.processing
    verdicts = verdicts_from_json(entry.verdicts) if entry and entry.verdicts else None
    tab = call.text("tab", "text")
    row = MailRow(message, entry.state if entry else None, entry.verdicts if entry else None)
    return {
        "shown": shown,
        "subject": subject_of(row),
        "events": timeline(shown, found),
        "verdicts": verdicts.statuses(scanned=True) if verdicts else {},
        "is_held": entry is not None and entry.state is ProcessingState.HELD,
        "is_open": entry is not None
        and entry.state in {ProcessingState.HELD, ProcessingState.QUEUED},
        "tab": tab if tab in _TABS else "text",
        "tabs": _TABS,
        **await _tab(shown, tab, verdicts),
    }


async def _tab(shown: ShownMessage, tab: str, verdicts: Any) -> dict[str, Any]:
    if tab == "headers":
        trace, own = split_trace(shown.message.header)
        fields = []
        for section, is_ours in ((trace, True), (own, False)):
            for name, value in header_fields(section):
                fields.append((name.decode("utf-8", "replace"), _value(value), is_ours))
                if len(fields) == _MAX_FIELDS:
                    break
        return {"fields": fields, "explained": explained(verdicts) if verdicts else []}
    if shown.content is None:
        return {"mail": ShownMail(problem="The content is not kept any more.")}
    if tab == "source":
        beginning, is_cut = await _beginning(shown.content, _MAX_SOURCE)
        return {"source": beginning.decode("utf-8", "replace"), "is_cut": is_cut}
    mail = await _read(shown)
    blocked = 0
    if tab == "html" and mail.html is not None:
        _, blocked = await asyncio.to_thread(harmless, mail.html)
    return {"mail": mail, "blocked": blocked}


async def _find(call: PageCall) -> ShownMessage:
    try:
        return await call.services.messages.find(call.account_id, call.path["id"])
    except AmbiguousIdError as error:
        raise PageError(404, "Several messages have this beginning", str(error)) from None


async def _read(shown: ShownMessage) -> ShownMail:
    try:
        beginning, is_cut = await _beginning(_content(shown))
    except (ContentGoneError, PageError):
        return ShownMail(problem="The content is not kept any more.")
    return await asyncio.to_thread(read_mail, beginning, is_cut=is_cut)


def _content(shown: ShownMessage) -> Content:
    if shown.content is None:
        raise PageError(410, "The content is gone", "It is kept as long as the setting retention.")
    return shown.content


async def _beginning(content: Content, most: int = MAX_READ) -> tuple[bytes, bool]:
    """Return up to so many octets of a content, and whether there are more."""
    pieces, size = [], 0
    async for piece in content.stream():
        pieces.append(piece)
        size += len(piece)
        if size >= most:
            break
    return b"".join(pieces)[:most], content.size > most


def _shown_row(row: MailRow) -> dict[str, Any]:
    failing = []
    if row.verdicts:
        statuses = verdicts_from_json(row.verdicts).statuses(scanned=True)
        failing = [n.removesuffix("Verdict") for n, v in statuses.items() if v == "FAIL"]
    return {
        "message": row.message,
        "subject": subject_of(row),
        "state": row_state(row),
        "failing": failing,
    }


def _rendered(row: MailRow, search: MailSearch, *, is_new: bool) -> str:
    kept = is_new and search.accepts(row) and not search.before
    flags = search.conditions
    if (flags.bounced and not row.bounces) or (flags.failed and row.worst is None):
        kept = False
    context = {"row": _shown_row(row), "shown": None, "q": search.text, "is_kept": kept}
    return render("mail/row.html", context)


def _message_of(event: Event) -> str | None:
    if event.kind in {EventKind.RECEIVED, EventKind.STEP}:
        return event.message_id
    original = event.fields.get("original_message_id")
    return original if isinstance(original, str) and original else None


def _value(value: bytes) -> str:
    return b" ".join(value.split()).decode("utf-8", "replace")


def _as_file(name: str) -> dict[str, str]:
    ascii_name = name.encode("ascii", "replace").decode().replace("?", "_").replace('"', "_")
    disposition = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{segment(name)}"
    return {"Content-Disposition": disposition, "Content-Security-Policy": "sandbox"}


PAGES = (
    Page("GET", "/mail", list_mail),
    Page("GET", "/mail/live", follow),
    Page("GET", "/mail/{id}", show_message),
    Page("POST", "/mail/{id}", change),
    Page("GET", "/mail/{id}/html", html),
    Page("GET", "/mail/{id}/raw", raw),
    Page("GET", "/mail/{id}/parts/{number}", part),
)
