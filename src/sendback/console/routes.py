"""The console as an ASGI application: access, the table of pages, errors as pages."""

import logging
import re
from collections.abc import Sequence
from time import monotonic
from urllib.parse import urlencode

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from sendback.aws.errors import SesError
from sendback.console import static_files
from sendback.console.access import PREFIX, Access, nobody, session_of
from sendback.console.call import Page, PageCall
from sendback.console.errors import PageError, not_found
from sendback.console.forms import Form, read_form
from sendback.console.navigation import navigation
from sendback.console.pages import (
    accounts,
    audit,
    bounce_form,
    bounces,
    doctor,
    domains,
    faults,
    identities,
    login,
    mail,
    overview,
    policies,
    rules,
    settings,
    targets,
    try_mail,
    verification_templates,
)
from sendback.console.rendering import render
from sendback.console.services import ConsoleServices
from sendback.console.viewer import Viewer
from sendback.log_limits import LogLimiter
from sendback.store.engine.errors import NotFoundError, StoreUnavailableError

log = logging.getLogger(__name__)

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_TLS_ONLY = "max-age=31536000"

PAGES: tuple[Page, ...] = (
    *accounts.PAGES,
    *audit.PAGES,
    *bounce_form.PAGES,
    *bounces.PAGES,
    *doctor.PAGES,
    *domains.PAGES,
    *faults.PAGES,
    *identities.PAGES,
    *login.PAGES,
    *mail.PAGES,
    *overview.PAGES,
    *policies.PAGES,
    *rules.PAGES,
    *settings.PAGES,
    *targets.PAGES,
    *try_mail.PAGES,
    *verification_templates.PAGES,
)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]{1,800})", path))


class Console:
    """The pages, for those who may use them."""

    def __init__(
        self, services: ConsoleServices, access: Access, pages: Sequence[Page] = PAGES
    ) -> None:
        self._services = services
        self._access = access
        self._table = [(_pattern(page.path), page) for page in pages]
        self._limiter = LogLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if self._access.has_public_tls(request):
            response.headers["Strict-Transport-Security"] = _TLS_ONLY
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._serve(request)
        except PageError as error:
            return self._failure(request, error)
        except NotFoundError as error:
            return self._failure(request, not_found(error.kind))
        except SesError as error:
            return self._failure(request, PageError(error.http_status, error.code, error.message))
        except StoreUnavailableError:
            text = (
                "Nothing was changed. Try again in a moment; the log of the server has the cause."
            )
            return self._failure(request, PageError(503, "The store is unavailable", text))
        except ClientDisconnect:
            raise
        except Exception as bug:
            more = self._limiter.check(repr(type(bug)), monotonic())
            if more is not None:
                log.exception("a page of the console failed%s", more)
            text = "The log of the server has the cause. Please report it."
            return self._failure(request, PageError(500, "The page failed: an error here", text))

    async def _serve(self, request: Request) -> Response:
        self._access.check_origin(request)
        path = str(request.scope["path"]).removeprefix(PREFIX)
        if path in {"", "/"}:
            return RedirectResponse(f"{PREFIX}/mail", 303)
        if path.startswith("/static/"):
            return static_files.response(path.removeprefix("/static/"), request)
        page, variables = self._find(request.method, path)
        viewer = await self._access.viewer(request)
        if viewer is None:
            if not page.for_all:
                return _to_login(request)
            viewer = nobody(request)
        if page.for_operator and not viewer.is_operator:
            raise PageError(403, "Only the operator may see this", "Sign in as the operator.")
        form = Form()
        if request.method == "POST":
            form = await read_form(request)
            self._access.check_token(request, form, session_of(request) or "")
        call = PageCall(
            request,
            variables,
            self._services,
            viewer,
            self._access.token(viewer.session),
            form,
            self._common(path, viewer),
        )
        response = await page.handler(call)
        await self._record(call, path)
        session = call.sessions[-1] if call.sessions else viewer.session
        if session_of(request) != session:
            self._access.set_session(response, request, session)
        return response

    async def _record(self, call: PageCall, path: str) -> None:
        """Keep a line of what was changed."""
        if call.request.method != "POST":
            return
        for note in call.notes:
            viewer = call.viewer
            await self._services.audit.record(viewer.caller, viewer.origin.source_ip, path, note)

    def _find(self, method: str, path: str) -> tuple[Page, dict[str, str]]:
        matches = [(found, page) for regex, page in self._table if (found := regex.fullmatch(path))]
        if not matches:
            raise PageError(404, "There is nothing at this address", "Follow a link of the pages.")
        wanted = "GET" if method == "HEAD" else method
        for found, page in matches:
            if page.method == wanted:
                return page, found.groupdict()
        raise PageError(405, "This cannot be done here", "Follow a link of the pages.")

    def _common(self, path: str, viewer: Viewer) -> dict[str, object]:
        """Return what the frame of every page shows."""
        services = self._services
        return {
            "path": path,
            "areas": navigation(path) if viewer.account_id else (),
            "http": services.http,
            "smtp": services.smtp,
            "captures": services.settings.outbound.captures,
        }

    def _failure(self, request: Request, error: PageError) -> Response:
        context = {
            "error": error,
            "areas": navigation(""),
            "http": self._services.http,
            "smtp": self._services.smtp,
            "captures": self._services.settings.outbound.captures,
            "path": "",
        }
        template = (
            "error_part.html" if request.headers.get("hx-request") == "true" else "error.html"
        )
        headers = {"Retry-After": "1"} if error.status == 503 else None  # noqa: PLR2004
        return HTMLResponse(render(template, context), error.status, headers)


def _to_login(request: Request) -> Response:
    """Return a redirect to the login, which leads back to the page that was asked for."""
    parameters = {"next": request.url.path}
    if request.method in {"GET", "HEAD"}:
        if request.url.query:
            parameters["next"] += f"?{request.url.query}"
    else:
        parameters = {"ended": "1"}
    where = f"{PREFIX}/login?{urlencode(parameters)}"
    if request.headers.get("hx-request") == "true":
        return Response(status_code=200, headers={"HX-Redirect": where})
    return RedirectResponse(where, 303)
