"""Process a signed request: verify, authorize, find the operation, decode, run, encode.

Only this module turns errors into responses. Before the signature is verified only the query
string is read, the length of which the HTTP layer bounds; the body is not parsed.
"""

import logging
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, NoReturn

from sendback.api.authentication import Authenticator, call_key
from sendback.api.forms import parse_form
from sendback.api.operations import OPERATIONS, Operation
from sendback.api.operations.bounce import parse_request
from sendback.api.responses import ApiResponse
from sendback.api.services import Request, Services
from sendback.aws.errors import SesError, service_unavailable, shown
from sendback.aws.model import API_VERSION, operation_model, operation_names
from sendback.aws.query import decode
from sendback.aws.response import encode_error, encode_success
from sendback.aws.sigv4 import SignedRequest
from sendback.errors import SendbackError
from sendback.faults.model import FaultEvent, FaultRule, Point
from sendback.ids import IdMaker
from sendback.log_limits import LogLimiter
from sendback.service.access.authorization import Access, Authorization
from sendback.service.access.caller import Caller, CallOrigin
from sendback.service.faults.faults import Faults
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.outbox.rows import OutboxMessage

log = logging.getLogger(__name__)

_HEAVY_FORM = 64 * 1024  # octets: some 5 ms of reading
# Operations whose answers may have tens of thousands of elements.
_LARGE_RESPONSES = frozenset(
    {
        "DescribeActiveReceiptRuleSet",
        "DescribeReceiptRuleSet",
        "ListIdentities",
        "ListVerifiedEmailAddresses",
    }
)


@dataclass(frozen=True, slots=True)
class _Call:
    """The operation that a request names, and its parameters as sent, in order."""

    action: str
    pairs: Sequence[tuple[str, str]]
    parameters: Mapping[str, str]


class _AnswerLostError(SendbackError):
    """An injected fault: no response is sent."""


class Dispatcher:
    """Handles Query requests."""

    def __init__(
        self,
        services: Services,
        authenticator: Authenticator,
        authorization: Authorization,
        ids: IdMaker,
        faults: Faults,
    ) -> None:
        self._services = services
        self._authenticator = authenticator
        self._authorization = authorization
        self._ids = ids
        self._faults = faults
        self._log_limiter = LogLimiter()

    async def answer(self, request: SignedRequest, origin: CallOrigin) -> ApiResponse:
        """Return the response to a request; every error becomes an error response."""
        request_id = self._ids.request()
        try:
            body = await self._run(request, origin, request_id)
        except SesError as error:
            return self._failure(error, request_id)
        except _AnswerLostError:
            return ApiResponse(200, b"", request_id, is_lost=True)
        except StoreUnavailableError:
            return self._failure(service_unavailable(), request_id)
        except Exception as error:
            more = self._log_limiter.check(repr(type(error)), monotonic())
            if more is not None:
                log.exception("request %s failed%s", request_id, more)
            text = "The request processing has failed because of an unknown error."
            return self._failure(SesError("InternalFailure", text), request_id)
        return ApiResponse(200, body, request_id)

    async def call(
        self, caller: Caller, origin: CallOrigin, pairs: Sequence[tuple[str, str]]
    ) -> Mapping[str, Any]:
        """Call an operation for a caller who is known, and return its output.

        `pairs` are the parameters of a request of the Query API, `Action` among them. Raise
        `SesError`.
        """
        request, action = self._request(caller, origin, pairs)
        return await _operation(action)(request, self._services)

    async def preview_bounce(
        self, caller: Caller, origin: CallOrigin, pairs: Sequence[tuple[str, str]]
    ) -> OutboxMessage:
        """Return the bounce that a SendBounce with these parameters would send.

        Raise `SesError`.
        """
        request, _ = self._request(caller, origin, pairs)
        return await self._services.bouncing.preview(request.access, parse_request(request.input))

    def _request(
        self, caller: Caller, origin: CallOrigin, pairs: Sequence[tuple[str, str]]
    ) -> tuple[Request, str]:
        """Return the request of a caller who is known, and its action. Raise `SesError`."""
        called = _Call(_action(list(pairs)), list(pairs), dict(pairs))
        access = self._permitted(caller, origin, called)
        given = decode(operation_model(called.action), called.pairs)
        return Request(access, given, None), called.action

    def refuse(self, error: SesError) -> ApiResponse:
        """Return the response to a request that cannot be read."""
        return self._failure(error, self._ids.request())

    @staticmethod
    def _failure(error: SesError, request_id: str) -> ApiResponse:
        return ApiResponse(error.http_status, encode_error(error, request_id), request_id)

    async def _run(self, request: SignedRequest, origin: CallOrigin, request_id: str) -> bytes:
        caller = await self._authenticator.authenticate(request, datetime.now(UTC))
        heavy, is_large = self._services.heavy, len(request.body) > _HEAVY_FORM
        call = await heavy.run(lambda: _read_call(request), heavy=is_large)
        access = self._permitted(caller, origin, call)
        model = operation_model(call.action)
        operation = _operation(call.action)
        fault = await self._fault(call.action, origin) if Point.API in self._faults.points else None
        given = await heavy.run(lambda: decode(model, call.pairs), heavy=is_large)
        answering = operation(Request(access, given, call_key(caller, request)), self._services)
        output = await (answering if fault is None else _lost(answering))
        return await heavy.run(
            lambda: encode_success(model, output, request_id),
            heavy=call.action in _LARGE_RESPONSES,
        )

    def _permitted(self, caller: Caller, origin: CallOrigin, call: "_Call") -> Access:
        """Return the access of a call. Raise `SesError` if policies do not allow it."""
        access = self._authorization.access(caller, origin, call.action, call.parameters)
        self._authorization.check_call(access, call.action, call.parameters)
        return access

    async def _fault(self, action: str, origin: CallOrigin) -> FaultRule | None:
        """Return a fault that loses the response; raise one that replaces the operation."""
        fault = await self._faults.inject(
            FaultEvent(Point.API, client=origin.source_ip, operation=action)
        )
        if fault is None:
            return None
        if fault.drop:
            raise _AnswerLostError
        if fault.error is not None:
            raise SesError(fault.error, fault.text or f"Injected fault {fault.name}")
        return fault if fault.lost else None


def _operation(action: str) -> Operation:
    operation = OPERATIONS.get(action)
    if operation is None:
        text = f"The operation {action} is part of the SES API and not built yet."
        raise SesError("InvalidAction", text)
    return operation


async def _lost(answering: Awaitable[object]) -> NoReturn:
    """Finish the operation, then raise `_AnswerLostError`."""
    with suppress(SesError):
        await answering
    raise _AnswerLostError


def _read_call(request: SignedRequest) -> _Call:
    pairs = [*request.query, *_form(request)]
    return _Call(_action(pairs), pairs, dict(pairs))


def _form(request: SignedRequest) -> list[tuple[str, str]]:
    if not request.body:
        return []
    return parse_form(request.body)


def _action(pairs: list[tuple[str, str]]) -> str:
    actions = [value for name, value in pairs if name == "Action"]
    versions = [value for name, value in pairs if name == "Version"]
    if not actions or not actions[0]:
        raise SesError("MissingAction", "The request is missing an action.")
    if len(actions) > 1 or len(versions) > 1:
        raise SesError("InvalidQueryParameter", "Action and Version may be given once each.")
    if versions and versions[0] != API_VERSION:  # SES has one version, and assumes it
        raise SesError(
            "InvalidParameterValue",
            f"Version: '{shown(versions[0])}' is not supported; this is {API_VERSION}.",
        )
    if actions[0] not in operation_names():
        raise SesError(
            "InvalidAction",
            f"Could not find operation {shown(actions[0])} for version {API_VERSION}",
        )
    return actions[0]
