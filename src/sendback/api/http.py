"""The HTTP edge: `/` for the Query API, `/healthz`, `/readyz`, `/verify`, SNS's certificate."""

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sendback.api.dispatch import Answer, Dispatcher, parse_form
from sendback.api.pages import VerificationPages, unavailable
from sendback.aws.errors import SesError
from sendback.aws.response import CONTENT_TYPE
from sendback.aws.sigv4 import SignedRequest
from sendback.service.caller import CallOrigin
from sendback.service.verification_links import PATH as VERIFY_PATH
from sendback.store.errors import StoreUnavailableError

Endpoint = Callable[[Request], Awaitable[Response]]

MAX_BODY_OCTETS = 2 * 2**20  # read before the signature is known to be right


class QueryApi:
    """The ASGI endpoint of the Query API."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            signed = await _read(request)
        except SesError as error:
            answer = self._dispatcher.refuse(error)
        else:
            answer = await self._dispatcher.answer(signed, _origin(request))
        await _response(answer)(scope, receive, send)


def http_app(
    dispatcher: Dispatcher,
    is_ready: Callable[[], Awaitable[bool]],
    certificate: Callable[[str], bytes | None],
    pages: VerificationPages,
) -> Starlette:
    """The ASGI application. `certificate` answers what is at a path, if it is one's path."""

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        ready = await is_ready()
        return PlainTextResponse("ready\n" if ready else "not ready\n", 200 if ready else 503)

    async def sns_certificate(request: Request) -> Response:
        found = certificate(request.url.path)
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

    return Starlette(
        routes=[
            Route("/", QueryApi(dispatcher), methods=["GET", "POST"]),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route(VERIFY_PATH, page(pages.show), methods=["GET"]),
            Route(VERIFY_PATH, page(pages.use), methods=["POST"]),
            Route("/SimpleNotificationService-{fingerprint}.pem", sns_certificate),
        ]
    )


async def _read(request: Request) -> SignedRequest:
    body = b""
    if request.method == "POST":
        body = await _body(request)
    headers: dict[str, str] = {}
    for name, value in request.scope["headers"]:
        key = name.decode("latin-1")
        text = value.decode("utf-8", "surrogateescape")  # as it was signed, octet for octet
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    query = request.scope["query_string"].decode("latin-1")
    return SignedRequest(request.method, request.url.path, parse_form(query), headers, body)


def _origin(request: Request) -> CallOrigin:
    return CallOrigin(
        source_ip=request.client.host if request.client else "",
        user_agent=request.headers.get("user-agent", ""),
        secure=request.url.scheme == "https",
    )


async def _body(request: Request) -> bytes:
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_OCTETS:
            raise SesError("MalformedQueryString", "The request body is too large.")
        chunks.append(chunk)
    return b"".join(chunks)


def _response(answer: Answer) -> Response:
    return Response(
        answer.body,
        status_code=answer.status,
        media_type=CONTENT_TYPE,
        headers={"x-amzn-RequestId": answer.request_id},
    )
