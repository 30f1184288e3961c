"""The domains that mail waits for: their failures, blocks and pauses."""

from starlette.responses import Response

from sendback.console.call import Page, PageCall
from sendback.console.errors import PageError
from sendback.mail.address import AddressError, parse_domain


async def list_domains(call: PageCall) -> Response:
    """Show the domains."""
    return call.page("bounces/domains.html", domains=await call.services.outbox.domains())


async def change(call: PageCall) -> Response:
    """Pause or resume delivery to a domain."""
    try:
        domain = parse_domain(call.form.text("domain"))
    except AddressError as error:
        raise PageError(400, "This is no domain", str(error)) from None
    paused = call.form.text("do") == "pause"
    await call.services.outbox.set_paused(domain, paused=paused)
    done = "is paused" if paused else "goes on"
    return call.go("/domains", note=f"Delivery to {domain} {done}.")


PAGES = (
    Page("GET", "/domains", list_domains, for_operator=True),
    Page("POST", "/domains", change, for_operator=True),
)
