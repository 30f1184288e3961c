"""The checks of `sendback doctor`."""

from starlette.responses import Response

from sendback.console.call import Page, PageCall
from sendback.console.errors import PageError


async def show(call: PageCall) -> Response:
    """Show the page; the checks are begun by its button, as they ask other servers."""
    return call.page("server/doctor.html", findings=None)


async def run(call: PageCall) -> Response:
    """Carry out the checks and show what they found."""
    examine = call.services.doctor
    if examine is None:
        raise PageError(404, "There is no doctor here", "Run sendback doctor in a terminal.")
    return call.page("server/doctor.html", findings=await examine())


PAGES = (
    Page("GET", "/doctor", show, for_operator=True),
    Page("POST", "/doctor", run, for_operator=True),
)
