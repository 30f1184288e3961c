"""Who may use the API.

It is off unless the server listens on loopback or the setting `inspection_token` is set; a server
that delivers by MX has real mail, which other users of the machine must not read, so it always
needs the token. With a token, each request needs it. Without one, web pages are the danger: a
browser on this machine reaches loopback too. So the host must be one that only means this machine,
which a name that an attacker rebinds does not (DNS rebinding), and requests that come from pages of
other sites are refused; no CORS header lets them read an answer.
"""

import hmac
from urllib.parse import urlsplit

from starlette.requests import Request

from sendback.config.types import Listen
from sendback.inspection.errors import ApiError

_OFF = (
    "The inspection API is off: set inspection_token to use it on a server that does not listen "
    "on loopback, or that delivers by MX."
)


class AccessRule:
    """Decides on requests, by their header fields."""

    def __init__(self, listen: Listen, token: str, *, by_mx: bool) -> None:
        self._needs_token = by_mx or not listen.is_loopback
        self._token = token.encode()

    def check(self, request: Request) -> None:
        """Raise `ApiError` if the request is refused."""
        if self._token:
            self._check_token(request.headers.get("authorization", ""))
        elif self._needs_token:
            raise ApiError(403, "Disabled", _OFF)
        else:
            _check_origin(request)

    def _check_token(self, given: str) -> None:
        scheme, _, token = given.partition(" ")
        octets = token.strip().encode("utf-8", "surrogateescape")
        is_right = hmac.compare_digest(octets, self._token)
        if scheme.lower() != "bearer" or not is_right:
            text = "The request needs the field Authorization: Bearer with the inspection_token."
            headers = {"WWW-Authenticate": 'Bearer realm="sendback"'}
            raise ApiError(401, "Unauthorized", text, headers=headers)


def _check_origin(request: Request) -> None:
    host = request.headers.get("host", "")
    if not _is_this_machine(f"//{host}"):
        text = "Host must be localhost or a loopback address, or set inspection_token."
        raise ApiError(403, "HostNotAllowed", text)
    origin = request.headers.get("origin")
    if origin is not None and not _is_this_machine(origin):
        raise ApiError(403, "OriginNotAllowed", "Requests of pages of other sites are refused.")
    if request.headers.get("sec-fetch-site", "none") == "cross-site":
        raise ApiError(403, "OriginNotAllowed", "Requests of pages of other sites are refused.")


def _is_this_machine(url: str) -> bool:
    try:
        name = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return Listen(name, 0).is_loopback
