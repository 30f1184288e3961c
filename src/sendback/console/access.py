"""Who may use the console, from where.

Browsers are the danger: any page that somebody opens can send requests here. So the Host must be a
name of this server (DNS rebinding), requests that change something must come from a page of the
console (`Sec-Fetch-Site`, `Origin`) and have the token of the browser's session, and cookies are
`SameSite=Strict`.

On loopback with the development key nobody signs in: the viewer is the developer, who is the
operator too. That holds only for a browser that names a loopback address: by any other name a proxy
may be in between. A server that delivers by MX has real mail, which other users of the machine must
not read; there, and everywhere else, one signs in.
"""

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from sendback.aws.arn import ROOT_USER
from sendback.config.settings import Settings
from sendback.config.types import Listen
from sendback.console.errors import PageError
from sendback.console.forms import TOKEN_FIELD, Form
from sendback.console.viewer import Viewer
from sendback.crypto.sealing import Sealing
from sendback.service.access.caller import Caller, CallOrigin
from sendback.service.access.keys import DEVELOPMENT_KEY
from sendback.service.access.sessions import Sessions

PREFIX = "/console"
COOKIE = "sendback_console"
_TOKEN_HEADER = "x-csrf-token"  # noqa: S105 - the name of a field
_SESSION_LENGTH = 43  # of `secrets.token_urlsafe(32)`
_MAX_AGENT = 2048


class Access:
    """Decides on requests, and knows the tokens of sessions."""

    def __init__(
        self, settings: Settings, http: Listen, sealing: Sealing, sessions: Sessions
    ) -> None:
        self._settings = settings
        self._http = http
        self._sealing = sealing
        self._sessions = sessions
        self._names = _own_names(settings, http)
        public = urlsplit(settings.public_url)
        self._public_host = public.hostname if public.scheme == "https" else None
        self._public_netloc = public.netloc

    def needs_login(self, request: Request) -> bool:
        """Whether the user of this browser signs in."""
        settings = self._settings
        is_private = settings.development_key and self._http.is_loopback
        if not is_private or settings.outbound.by_mx:
            return True
        return not Listen(_host_of_request(request), 0).is_loopback

    def is_secure(self, request: Request) -> bool:
        """Whether the browser uses TLS, perhaps to a proxy in front of this server."""
        return request.url.scheme == "https" or self.has_public_tls(request)

    def has_public_tls(self, request: Request) -> bool:
        """Whether the browser uses the public URL, and that is one with TLS."""
        return self._public_host is not None and _host_of_request(request) == self._public_host

    def check_origin(self, request: Request) -> None:
        """Raise `PageError` for another host, and for what another site asks for.

        A page of another site may only open a page of the console, as a link does.
        """
        name = _host_of_request(request)
        if name not in self._names and not Listen(name, 0).is_loopback:
            text = (
                "Open the console by the address of the server or by the host of public_url, or "
                "add the name to the setting console_hosts."
            )
            raise PageError(403, "This host is not known here", text)
        site = request.headers.get("sec-fetch-site", "none")
        is_own = site in {"same-origin", "none"}
        if request.method in {"GET", "HEAD"}:
            if not is_own and request.headers.get("sec-fetch-mode", "navigate") != "navigate":
                text = "The request came from a page of another site."
                raise PageError(403, "Not from here", text)
            return
        origin = request.headers.get("origin")
        own = {request.headers["host"], self._public_netloc} - {""}
        is_foreign = origin is not None and urlsplit_netloc(origin) not in own
        if is_foreign or not is_own:
            text = "The request came from a page of another site. Nothing was changed."
            raise PageError(403, "Not from here", text)

    async def viewer(self, request: Request) -> Viewer | None:
        """Return who sends the request; None: who has to sign in first.

        Raise `StoreUnavailableError`.
        """
        session = session_of(request)
        if self.needs_login(request):
            found = await self._sessions.find(session) if session else None
            if found is None or session is None:
                return None
            is_root = found.user_name == ROOT_USER
            is_operator = is_root and found.account_id == self._settings.account_id
            return Viewer(found, origin_of(request), session, is_operator, signed_in=True)
        caller = Caller(self._settings.account_id, "developer", DEVELOPMENT_KEY)
        return Viewer(caller, origin_of(request), session or new_session(), is_operator=True)

    def set_session(self, response: Response, request: Request, session: str) -> None:
        """Give the browser a session."""
        response.set_cookie(
            COOKIE,
            session,
            path=PREFIX,
            httponly=True,
            samesite="strict",
            secure=self.is_secure(request),
        )

    def token(self, session: str) -> str:
        """Return the token that forms of this session have."""
        key = self._sealing.derive("console forms")
        return hmac.new(key, session.encode(), hashlib.sha256).hexdigest()

    def check_token(self, request: Request, form: Form, session: str) -> None:
        """Raise `PageError` unless the request has the token of its session."""
        given = request.headers.get(_TOKEN_HEADER) or form.text(TOKEN_FIELD)
        expected = self.token(session)
        if not hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode()):
            text = (
                "The page was open for too long, or in another session. Open it again, and repeat."
            )
            raise PageError(403, "This form is not valid any more", text)


def session_of(request: Request) -> str | None:
    """Return the session that the browser has, if it has the form of one."""
    value = request.cookies.get(COOKIE, "")
    return value if len(value) == _SESSION_LENGTH and value.isascii() else None


def nobody(request: Request) -> Viewer:
    """Return the viewer of who has not signed in, for the page on which one does."""
    session = session_of(request) or new_session()
    return Viewer(Caller("", "", ""), origin_of(request), session, is_operator=False)


def new_session() -> str:
    """Return a new session: 256 random bits."""
    return secrets.token_urlsafe(32)


def origin_of(request: Request) -> CallOrigin:
    """Return the origin of the request, for the conditions of policies."""
    client = request.client.host if request.client else ""
    agent = request.headers.get("user-agent", "")[:_MAX_AGENT]
    return CallOrigin(client, agent, request.url.scheme == "https")


def urlsplit_netloc(url: str) -> str:
    """Return the host and port of a URL; empty for one that cannot be read."""
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def _own_names(settings: Settings, http: Listen) -> frozenset[str]:
    names = {http.host, settings.hostname, _host_of(settings.public_url), *settings.console_hosts}
    return frozenset(name.lower() for name in names if name)


def _host_of_request(request: Request) -> str:
    return _host_of(f"//{request.headers.get('host', '')}")


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
