"""The stylesheet and the scripts, with an ETag of their content."""

import hashlib
from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from sendback.console.errors import PageError

_TYPES = {
    "console.css": "text/css; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


def response(name: str, request: Request) -> Response:
    """Return a static file. Raise `PageError` for a name that is none."""
    if name not in _TYPES:
        raise PageError(404, "There is no such file", "Follow a link of the pages.")
    content, tag = _file(name)
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=_TYPES[name])


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = (files("sendback.console") / "static" / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
