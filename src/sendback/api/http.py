"""The HTTP edge: `/` for the Query API, `/healthz`, `/readyz`, `/verify`, SNS's certificate.

What a request may hold is bounded before it gets here: `connections`.
"""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sendback.api.answers import Answer
from sendback.api.dispatch import Dispatcher
from sendback.api.forms import MAX_QUERY_PARAMETERS, parse_form
from sendback.api.pages import VerificationPages, unavailable
from sendback.aws.errors import SesError, invalid_value, malformed_http
from sendback.aws.sigv4 import SignedRequest
from sendback.service.caller import CallOrigin
from sendback.service.verification_links import PATH as VERIFY_PATH
from sendback.store.errors import StoreUnavailableError

Endpoint = Callable[[Request], Awaitable[Response]]

# Conditions of policies are held against it, which costs its length. The SDKs' have some hundred.
MAX_USER_AGENT = 2048
_METHODS = ("GET", "HEAD", "POST")


class QueryApi:
    """The ASGI endpoint of the Query API."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            origin = _origin(request)
            signed = await _read(request)
        except ClientDisconnect:
            return
        except SesError as error:
            answer = self._dispatcher.refuse(error)
        else:
            answer = await self._dispatcher.answer(signed, origin)
        await _response(answer)(scope, receive, send)


def http_app(
    dispatcher: Dispatcher,
    is_ready: Callable[[], Awaitable[bool]],
    certificate: Callable[[str], bytes | None],
    pages: VerificationPages,
) -> Starlette:
    """Return the ASGI application. `certificate` returns what is at a path, or None."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready = await is_ready()
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def sns_certificate(request: Request) -> Response:
        found = certificate(request.scope["path"])
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
            Route("/", QueryApi(dispatcher)),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route(VERIFY_PATH, page(pages.show), methods=["GET"]),
            Route(VERIFY_PATH, page(pages.use), methods=["POST"]),
            Route("/SimpleNotificationService-{fingerprint}.pem", sns_certificate),
        ]
    )
    # A redirect to the path with another ending would lead to whatever host the client names.
    app.router.redirect_slashes = False
    return app


async def _read(request: Request) -> SignedRequest:
    if request.method not in _METHODS:
        raise malformed_http("The method must be GET or POST.", 405)
    body = b""
    if request.method == "POST":
        body = b"".join([chunk async for chunk in request.stream()])
    query = parse_form(request.scope["query_string"], MAX_QUERY_PARAMETERS)
    return SignedRequest(request.method, request.scope["path"], query, _headers(request), body)


def _headers(request: Request) -> dict[str, str]:
    """The fields by name; several of one name are joined (RFC 9110 §5.3), as they are signed."""
    found: dict[str, list[str]] = {}
    for name, value in request.scope["headers"]:
        # As it was signed, octet for octet.
        text = value.decode("utf-8", "surrogateescape")
        found.setdefault(name.decode("latin-1"), []).append(text)
    return {
        name: values[0] if len(values) == 1 else ",".join(values) for name, values in found.items()
    }


def _origin(request: Request) -> CallOrigin:
    """Raise `SesError` for a User-Agent that is too long: cut, it could get by a condition."""
    user_agent = request.headers.get("user-agent", "")
    if len(user_agent) > MAX_USER_AGENT:
        raise invalid_value("User-Agent", f"must be at most {MAX_USER_AGENT} characters")
    return CallOrigin(
        source_ip=request.client.host if request.client else "",
        user_agent=user_agent,
        secure=request.scope["scheme"] == "https",
    )


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers = answer.headers
    return response
