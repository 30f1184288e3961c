"""Outgoing mail: the list, one bounce, and what can be done with them."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from starlette.responses import Response

from sendback.clock import from_milliseconds, to_milliseconds
from sendback.console import live
from sendback.console.call import Page, PageCall, segment
from sendback.console.errors import PageError
from sendback.console.rendering import render
from sendback.console.shown_dsn import shown_dsn
from sendback.mail.address import AddressError, parse_domain
from sendback.service.events.model import Event, EventKind
from sendback.service.outbox.control import CANCEL, HOLD, RELEASE, RETRY, RETRY_WAITING, Change
from sendback.service.queues.control import WrongStateError
from sendback.store.outbox.control import Selection
from sendback.store.outbox.rows import OutboxState

_SHOWN = 50
_LONGEST_SECONDS = 5.0
_DATE_DIGITS = 14
_CHANGES = {
    "retry": (RETRY, "queued again"),
    "hold": (HOLD, "held"),
    "release": (RELEASE, "released"),
    "cancel": (CANCEL, "cancelled"),
}
_FILTERS = ("domain", "recipient", "reply", "original")


async def list_bounces(call: PageCall) -> Response:
    """Show bounces, the newest first."""
    call.permit("sendback:ReadBounces")
    found = await call.services.outbox.search(_selection(call), _older_than(call), _SHOWN)
    more = ""
    if found.searched_to is not None:
        date, key = found.searched_to
        more = f"{to_milliseconds(date)}.{key}"
    context: dict[str, Any] = {
        "rows": found.messages,
        "more": more,
        "searched_to": found.searched_to[0] if found.searched_to else None,
        "filters": {name: call.text(name) for name in (*_FILTERS, "state", "created_before")},
        "states": [state.value for state in OutboxState],
    }
    if call.target == "more":
        return call.page("bounces/rows.html", **context)
    return call.page("bounces/list.html", **context)


async def follow(call: PageCall) -> Response:
    """Return the stream of rows that change."""
    call.permit("sendback:ReadBounces")

    async def rows(events: Sequence[Event]) -> str:
        ids = tuple(dict.fromkeys(event.message_id for event in events if event.message_id))
        selection = Selection(call.account_id, message_ids=ids)
        found = await call.services.outbox.list(selection, _SHOWN)
        return "".join(render("bounces/row.html", {"row": row}) for row in reversed(found))

    return live.stream(call, (EventKind.BOUNCE, EventKind.ATTEMPT), rows)


async def show_bounce(call: PageCall) -> Response:
    """Show one bounce: its parts, its attempts."""
    call.permit("sendback:ReadBounces")
    message, attempts = await call.services.outbox.find(call.account_id, call.path["id"])
    dsn = await asyncio.to_thread(shown_dsn, message.content)
    return call.page("bounces/bounce.html", message=message, attempts=attempts, dsn=dsn)


async def raw(call: PageCall) -> Response:
    """Return a bounce as it is sent."""
    call.permit("sendback:ReadBounces")
    message, _ = await call.services.outbox.find(call.account_id, call.path["id"])
    name = f"{message.message_id}.eml"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(message.content, headers=headers, media_type="application/octet-stream")


async def change_one(call: PageCall) -> Response:
    """Retry, hold, release or cancel one bounce."""
    call.permit("sendback:ChangeBounces")
    change, done = _change(call)
    message_id = call.path["id"]
    try:
        await _apply(call, change, Selection(call.account_id, message_ids=(message_id,)))
    except WrongStateError as error:
        raise PageError(409, "This cannot be done now", str(error)) from None
    return call.go(f"/bounces/{segment(message_id)}", note=f"Bounce {message_id} was {done}.")


async def change_many(call: PageCall) -> Response:
    """Change those that are checked, or all that match the filter."""
    call.permit("sendback:ChangeBounces")
    change, done = _change(call)
    chosen = tuple(call.form.texts("id"))
    kept = {name: call.form.text(name) for name in (*_FILTERS, "state", "created_before")}
    shown = {name: value for name, value in kept.items() if value}
    if call.form.text("which") == "all":
        selection = _filter(call.account_id, kept)
        if selection.is_everything and not selection.states:
            text = "Choose a state, a domain or another filter first: this would change everything."
            raise PageError(400, "No filter", text)
        if change is RETRY and not selection.states:
            change = RETRY_WAITING
    elif chosen:
        selection = Selection(call.account_id, message_ids=chosen)
    else:
        return call.go("/bounces", note="No bounce is checked: nothing was changed.", **shown)
    try:
        count, more = await _apply(call, change, selection), ""
    except _EnoughError as enough:
        count, more = enough.count, " More of them match: do it again to go on."
    number = "One bounce was" if count == 1 else f"{count} bounces were"
    return call.go("/bounces", note=f"{number} {done}.{more}", **shown)


class _EnoughError(Exception):
    """A request has lasted long enough; so many bounces were changed."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count


async def _apply(call: PageCall, change: Change, selection: Selection) -> int:
    """Change the selected bounces. Raise `_EnoughError` after some seconds."""
    ends = monotonic() + _LONGEST_SECONDS

    def check(count: int) -> None:
        if monotonic() > ends:
            raise _EnoughError(count)

    return await call.services.outbox.change(change, selection, check)


def _change(call: PageCall) -> tuple[Change, str]:
    name = call.form.text("do")
    if name not in _CHANGES:
        raise PageError(400, "There is no such change", "Use the buttons of the page.")
    return _CHANGES[name]


def _selection(call: PageCall) -> Selection:
    return _filter(
        call.account_id, {name: call.text(name) for name in (*_FILTERS, "state", "created_before")}
    )


def _filter(account_id: str, given: dict[str, str]) -> Selection:
    state = given["state"]
    if state and state not in set(OutboxState):
        raise PageError(400, "There is no such state", f"States are {', '.join(OutboxState)}.")
    return Selection(
        account_id,
        domain=_domain(given["domain"]),
        recipient=given["recipient"],
        reply=given["reply"],
        original_message_id=given["original"],
        created_before=_date(given["created_before"]),
        states=(OutboxState(state),) if state else (),
    )


def _domain(text: str) -> str:
    try:
        return parse_domain(text) if text else ""
    except AddressError as error:
        raise PageError(400, "This is no domain", str(error)) from None


def _date(text: str) -> datetime | None:
    if not text:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise PageError(
            400, "This is no date", "Write it as 2026-11-27 or 2026-11-27T10:00."
        ) from None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _older_than(call: PageCall) -> tuple[datetime, str] | None:
    number, _, key = call.text("after").partition(".")
    if not key or not (number.isascii() and number.isdigit()) or len(number) > _DATE_DIGITS:
        return None
    return from_milliseconds(int(number)), key


PAGES = (
    Page("GET", "/bounces", list_bounces),
    Page("GET", "/bounces/live", follow),
    Page("POST", "/bounces", change_many),
    Page("GET", "/bounces/{id}", show_bounce),
    Page("GET", "/bounces/{id}/raw", raw),
    Page("POST", "/bounces/{id}", change_one),
)
