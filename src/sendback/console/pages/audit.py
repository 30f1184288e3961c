"""Who changed what in the console."""

import re

from starlette.responses import Response

from sendback.console.call import Page, PageCall
from sendback.console.errors import PageError

_ROWS = 50
_LINE_ID = re.compile(r"[0-9a-f-]{1,48}")


async def list_changes(call: PageCall) -> Response:
    """Show the changes of the account, and to the operator those of all; the newest first."""
    call.permit("sendback:ReadChanges")
    before = call.text("before")
    if before and not _LINE_ID.fullmatch(before):
        raise PageError(400, "The address cannot be read", "Follow a link of a page.")
    is_whole = call.viewer.is_operator and call.text("account") != "own"
    account_id = None if is_whole else call.account_id
    lines = await call.services.audit.lines(account_id, before, _ROWS + 1)
    return call.page(
        "access/audit.html",
        lines=lines[:_ROWS],
        next=lines[_ROWS - 1].line_id if len(lines) > _ROWS else "",
        is_whole=is_whole,
        is_first=not before,
        history=call.services.settings.history,
    )


PAGES = (Page("GET", "/audit", list_changes),)
