"""The settings, as they are in effect."""

from starlette.responses import Response

from sendback.console.call import Page, PageCall
from sendback.store.engine.nodes import serving_nodes


async def show(call: PageCall) -> Response:
    """Show the settings with their origins; nothing can be changed here."""
    services = call.services
    nodes = await services.store.read(serving_nodes)
    return call.page("server/settings.html", rows=services.setting_rows(), nodes=nodes)


PAGES = (Page("GET", "/settings", show, for_operator=True),)
