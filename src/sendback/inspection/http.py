"""The API as an ASGI application: access, the table of endpoints, errors as JSON."""

import logging
import re
from collections.abc import Sequence
from functools import cached_property
from time import monotonic

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from sendback.inspection.access import AccessRule
from sendback.inspection.answers import answer
from sendback.inspection.calls import Call, read_parameters
from sendback.inspection.endpoints import ENDPOINTS, Endpoint
from sendback.inspection.errors import ApiError, not_found
from sendback.inspection.openapi import document
from sendback.inspection.services import InspectionServices
from sendback.log_limits import LogLimiter
from sendback.store.engine.errors import StoreUnavailableError

log = logging.getLogger(__name__)

_DOCUMENT = "/_sendback/openapi.json"
_PATTERNS = [
    (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]{1,200})", endpoint.path)), endpoint)
    for endpoint in ENDPOINTS
]


class InspectionApi:
    """The endpoints, for those who may use them."""

    def __init__(self, services: InspectionServices, rule: AccessRule) -> None:
        self._services = services
        self._rule = rule
        self._limiter = LogLimiter()

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of the API."""
        return (
            Mount("/_sendback", self),
            Route("/_aws/ses", self),
            Route("/api/v1/chaos", self),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            self._rule.check(request)
            return await self._serve(request)
        except ApiError as error:
            return _failure(error)
        except StoreUnavailableError:
            text = "The store is unavailable; try again."
            return _failure(ApiError(503, "Unavailable", text, headers={"Retry-After": "1"}))
        except ClientDisconnect:
            raise
        except Exception as bug:
            more = self._limiter.check(repr(type(bug)), monotonic())
            if more is not None:
                log.exception("an inspection request failed%s", more)
            return _failure(ApiError(500, "InternalError", "The request failed: an error here."))

    async def _serve(self, request: Request) -> Response:
        path = str(request.scope["path"])
        if path == _DOCUMENT and request.method == "GET":
            return answer(self._document)
        matches = [(found, entry) for regex, entry in _PATTERNS if (found := regex.fullmatch(path))]
        if not matches:
            raise not_found(f"There is nothing at this path; see {_DOCUMENT}.")
        for found, endpoint in matches:
            if endpoint.method == request.method:
                return await self._call(request, endpoint, found.groupdict())
        allowed = ", ".join(endpoint.method for _, endpoint in matches)
        text = f"The method must be one of {allowed}."
        raise ApiError(405, "MethodNotAllowed", text, headers={"Allow": allowed})

    async def _call(self, request: Request, endpoint: Endpoint, path: dict[str, str]) -> Response:
        parameters = read_parameters(request, frozenset(endpoint.parameters))
        return await endpoint.handler(Call(request, path, parameters), self._services)

    @cached_property
    def _document(self) -> dict[str, object]:
        return document()


def _failure(error: ApiError) -> Response:
    return answer(error.to_dict(), error.status, error.headers)
