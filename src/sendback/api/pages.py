"""The pages that a verification link leads to.

GET shows a page with a button and changes nothing, so that a link scanner verifies nothing; POST
verifies. The pages have no scripts and no external resources, and do not leak the link
(Referrer-Policy).
"""

import html
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sendback.service.identities.verification import LinkResult, LinkState, Verification

# A link has at most 4,096 characters (`service.verification_links`).
_MAX_FORM_OCTETS = 8192
_MAX_FIELDS = 8

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 18px/1.5 system-ui, sans-serif; max-width: 36em; margin: 15vh auto; padding: 0 1em }}
button {{ font: inherit; padding: .5em 1.5em; cursor: pointer }}
strong {{ overflow-wrap: anywhere }}
</style>
</head>
<body>
<h1>{title}</h1>
{content}
</body>
</html>
"""
_FORM = """\
<p>Somebody asked to use <strong>{address}</strong> with the mail service at {host}.</p>
<p>If that was you, confirm. If not, close this page: nothing happens.</p>
<form method="post" action="/verify">
<input type="hidden" name="t" value="{link}">
<button type="submit">Confirm this address</button>
</form>
"""
_TEXTS = {
    LinkState.OPEN: (200, "Confirm your address", ""),
    LinkState.VERIFIED: (
        200,
        "Your address is verified",
        "<p><strong>{address}</strong> can be used now. You can close this page.</p>",
    ),
    LinkState.USED: (
        410,
        "This link was used already",
        "<p>It works once. Nothing was changed.</p>",
    ),
    LinkState.EXPIRED: (
        410,
        "This link has expired",
        "<p>Nothing was verified. Ask for a new mail where you asked for this one.</p>",
    ),
    LinkState.FORGED: (
        400,
        "This is not a link of ours",
        "<p>It may have been cut off or changed on its way. Copy it whole from the mail.</p>",
    ),
}


class VerificationPages:
    """`/verify`."""

    def __init__(self, verification: Verification, hostname: str) -> None:
        self._verification = verification
        self._hostname = hostname

    async def show(self, request: Request) -> Response:
        """Return the page for GET, which shows the state of the link."""
        link = _link_in(request.scope["query_string"])
        return self._answer(await self._verification.look_at(link), link)

    async def use(self, request: Request) -> Response:
        """Verify the address, for POST, and return the result page."""
        link = await _link_of_form(request)
        return self._answer(await self._verification.use(link), link)

    def _answer(self, answer: LinkResult, link: str) -> Response:
        if answer.redirect:
            return _protected(RedirectResponse(answer.redirect, 303))
        status, title, content = _TEXTS[answer.state]
        address = html.escape(answer.address)
        if answer.state is LinkState.OPEN:
            host = html.escape(self._hostname)
            content = _FORM.format(address=address, host=host, link=html.escape(link))
        else:
            content = content.format(address=address)
        return _protected(HTMLResponse(_PAGE.format(title=title, content=content), status))


def unavailable() -> Response:
    """Return the page for an unavailable store."""
    content = "<p>Nothing was changed. Try again in a minute.</p>"
    page = _PAGE.format(title="Not possible at the moment", content=content)
    return _protected(HTMLResponse(page, 503))


def _protected(response: Response) -> Response:
    # Without form-action: browsers apply it to redirects too, such as those of templates.
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    return response


async def _link_of_form(request: Request) -> str:
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > _MAX_FORM_OCTETS:
                return ""
    except ClientDisconnect:
        return ""
    return _link_in(b"".join(chunks))


def _link_in(form: bytes) -> str:
    """Return the field `t`, or an empty text, which is no link, for what is no form of ours."""
    if len(form) > _MAX_FORM_OCTETS:
        return ""
    try:
        fields = parse_qsl(form.decode("ascii"), max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:  # UnicodeDecodeError is one
        return ""
    return next((value for name, value in fields if name == "t"), "")
