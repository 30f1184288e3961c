"""The HTTP routes: `/` for the Query API, `/healthz`, `/readyz`, `/verify`, SNS's certificate.

`connections` bounds the size of a request before it reaches this module.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sendback.api.closed_services import is_closed, refuse_service
from sendback.api.connections import CLOSE
from sendback.api.dispatch import Dispatcher
from sendback.api.forms import MAX_QUERY_PARAMETERS, parse_form
from sendback.api.objects import is_for_objects
from sendback.api.pages import VerificationPages, unavailable
from sendback.aws.errors import SesError, invalid_value, malformed_http
from sendback.aws.sigv4 import SignedRequest, header_fields
from sendback.service.access.caller import CallOrigin
from sendback.service.identities.verification_links import PATH as VERIFY_PATH
from sendback.store.engine.errors import StoreUnavailableError

Endpoint = Callable[[Request], Awaitable[Response]]

# The time to match policy conditions grows with it. The SDKs send some hundred characters.
MAX_USER_AGENT = 2048
# SES executes a call with any of these; clients in the wild delete identities by DELETE.
METHODS_WITH_BODY = ("POST", "PUT", "DELETE")
METHODS = ("GET", "HEAD", *METHODS_WITH_BODY)


class QueryApi:
    """The ASGI endpoint of the Query API.

    It uses ASGI directly: Starlette's request and response would take a tenth of the time of a
    SendBounce.
    """

    def __init__(self, dispatcher: Dispatcher, *, has_console: bool = False) -> None:
        self._dispatcher = dispatcher
        self._has_console = has_console

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._has_console and _opens_page(scope):
            await RedirectResponse("/console/", 303)(scope, receive, send)
            return
        try:
            headers = header_fields(scope["headers"])
            origin = _origin(scope, headers)
            signed = await _read(scope, receive, headers)
        except ClientDisconnect:
            return
        except SesError as error:
            response = self._dispatcher.refuse(error)
        else:
            response = await self._dispatcher.answer(signed, origin)
        if response.is_lost:
            await _close(scope, receive)
            return
        status, fields = response.status, response.headers
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": response.body})


def http_app(
    dispatcher: Dispatcher,
    is_ready: Callable[[], Awaitable[bool]],
    certificate: Callable[[str], Awaitable[bytes | None]],
    pages: VerificationPages,
    *,
    objects: ASGIApp | None = None,
    inspection: Sequence[BaseRoute] = (),
    console: Callable[[], ASGIApp] | None = None,
) -> ASGIApp:
    """Return the ASGI application. `certificate` returns the certificate at a path, or None.

    `objects` serves the requests, of any path, whose signature is for S3. `inspection` are the
    routes of the inspection API. `console` returns the console, which is made when it is first
    used: its pages and templates take memory.
    """

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready = await is_ready()
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def sns_certificate(request: Request) -> Response:
        found = await certificate(request.scope["path"])
        if found is None:
            return PlainTextResponse("There is no such certificate.\n", 404)
        return Response(found, media_type="application/x-pem-file")

    def page(show: Endpoint) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            try:
                return await show(request)
            except StoreUnavailableError:
                return unavailable()

        return endpoint

    app = Starlette(
        routes=[
            Route("/", QueryApi(dispatcher, has_console=console is not None)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route(VERIFY_PATH, page(pages.show), methods=["GET"]),
            Route(VERIFY_PATH, page(pages.use), methods=["POST"]),
            Route("/SimpleNotificationService-{fingerprint}.pem", page(sns_certificate)),
            *inspection,
            *([] if console is None else [Mount("/console", _Lazy(console))]),
        ]
    )
    # A redirect to the path with or without the slash would lead to the host that the client names.
    app.router.redirect_slashes = False
    return _Services(app, objects)


class _Lazy:
    """An application that is made at its first request."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._make()(scope, receive, send)


class _Services:
    """Passes a request on by the service that its signature names, unverified."""

    def __init__(self, app: ASGIApp, objects: ASGIApp | None) -> None:
        self._app = app
        self._objects = objects

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if is_closed(scope["raw_path"]):
            app = refuse_service
        elif self._objects is not None and is_for_objects(scope["headers"], scope["query_string"]):
            app = self._objects
        await app(scope, receive, send)


def _opens_page(scope: Scope) -> bool:
    """Whether a browser opens the address of the server: a GET without parameters, for HTML."""
    if scope["method"] != "GET" or scope["query_string"]:
        return False
    fields = dict(scope["headers"])
    return b"text/html" in fields.get(b"accept", b"") and b"authorization" not in fields


async def _close(scope: Scope, receive: Receive) -> None:
    """Close the connection without a response (`api.connections` has put the function there)."""
    scope["state"][CLOSE]()
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(scope: Scope, receive: Receive, headers: Mapping[str, str]) -> SignedRequest:
    method = scope["method"]
    if method not in METHODS:
        raise malformed_http(f"The method must be one of {', '.join(METHODS)}.", 405)
    body = await _body(receive) if method in METHODS_WITH_BODY else b""
    query = parse_form(scope["query_string"], MAX_QUERY_PARAMETERS)
    return SignedRequest(method, scope["path"], query, headers, body)


async def _body(receive: Receive) -> bytes:
    """Return the body. Raise `ClientDisconnect` when the client closes the connection first."""
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message["body"])
        if not message["more_body"]:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _origin(scope: Scope, headers: Mapping[str, str]) -> CallOrigin:
    """Return the origin of a call.

    Raise `SesError` for a User-Agent that is too long: if it were cut, it could bypass a policy
    condition.
    """
    user_agent = headers.get("user-agent", "")
    if len(user_agent) > MAX_USER_AGENT:
        raise invalid_value("User-Agent", f"must be at most {MAX_USER_AGENT} characters")
    client = scope["client"]
    return CallOrigin(
        source_ip=client[0] if client else "",
        user_agent=user_agent,
        secure=scope["scheme"] == "https",
    )
