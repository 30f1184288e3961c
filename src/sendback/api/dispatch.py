"""From a signed request to XML: verify, authorize, find the operation, decode, run, encode.

The only place in which errors become answers.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from sendback.api.authentication import Authenticator, call_key
from sendback.api.operations import OPERATIONS
from sendback.api.services import Request, Services
from sendback.aws.errors import SesError, service_unavailable
from sendback.aws.model import API_VERSION, operation_model, operation_names
from sendback.aws.query import decode
from sendback.aws.response import encode_error, encode_success
from sendback.aws.sigv4 import SignedRequest
from sendback.ids import IdMaker
from sendback.service.authorization import Authorization
from sendback.service.caller import CallOrigin
from sendback.store.errors import StoreUnavailableError

log = logging.getLogger(__name__)

MAX_PARAMETERS = 20_000


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, an XML body, and the ID that both the body and a header name."""

    status: int
    body: bytes
    request_id: str


class Dispatcher:
    """Answers Query requests."""

    def __init__(
        self,
        services: Services,
        authenticator: Authenticator,
        authorization: Authorization,
        ids: IdMaker,
    ) -> None:
        self._services = services
        self._authenticator = authenticator
        self._authorization = authorization
        self._ids = ids

    async def answer(self, request: SignedRequest, origin: CallOrigin) -> Answer:
        """Whatever the request is, there is an answer in the protocol's form."""
        request_id = self._ids.request()
        try:
            body = await self._run(request, origin, request_id)
        except SesError as error:
            return Answer(error.http_status, encode_error(error, request_id), request_id)
        except StoreUnavailableError:
            return self._failure(service_unavailable(), request_id)
        except Exception:
            log.exception("request %s failed", request_id)
            text = "The request processing has failed because of an unknown error."
            return self._failure(SesError("InternalFailure", text), request_id)
        return Answer(200, body, request_id)

    def refuse(self, error: SesError) -> Answer:
        """For what cannot even be read as a request."""
        return self._failure(error, self._ids.request())

    @staticmethod
    def _failure(error: SesError, request_id: str) -> Answer:
        return Answer(error.http_status, encode_error(error, request_id), request_id)

    async def _run(self, request: SignedRequest, origin: CallOrigin, request_id: str) -> bytes:
        pairs = [*request.query, *_form(request)]
        caller = await self._authenticator.authenticate(request, datetime.now(UTC))
        action = _action(pairs)
        parameters = dict(pairs)
        access = self._authorization.access(caller, origin, action, parameters)
        self._authorization.check_call(access, action, parameters)
        model = operation_model(action)
        operation = OPERATIONS.get(action)
        if operation is None:
            raise SesError(
                "InvalidAction",
                f"The operation {action} is part of the SES API and not built yet.",
            )
        decoded = Request(access, decode(model, pairs), call_key(caller, request))
        output = await operation(decoded, self._services)
        return encode_success(model, output, request_id)


def _form(request: SignedRequest) -> list[tuple[str, str]]:
    if request.method != "POST" or not request.body:
        return []
    try:
        text = request.body.decode("ascii")
    except UnicodeDecodeError:
        raise malformed("The body is not a URL-encoded form.") from None
    return parse_form(text)


def parse_form(text: str) -> list[tuple[str, str]]:
    """Name and value pairs of a query string or form body, in order. Raises `SesError`."""
    try:
        return parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise malformed(f"The query string contains a syntax error: {error}") from None


def malformed(text: str) -> SesError:
    """SES API, common errors: MalformedQueryString."""
    return SesError("MalformedQueryString", text)


def _action(pairs: list[tuple[str, str]]) -> str:
    actions = [value for name, value in pairs if name == "Action"]
    versions = [value for name, value in pairs if name == "Version"]
    if not actions or not actions[0]:
        raise SesError("MissingAction", "The request is missing an action.")
    if len(actions) > 1 or len(versions) > 1:
        raise SesError("InvalidQueryParameter", "Action and Version may be given once each.")
    if not versions:
        raise SesError("MissingParameter", f"The request must contain Version={API_VERSION}.")
    if versions[0] != API_VERSION:
        raise SesError(
            "InvalidParameterValue",
            f"Version: {versions[0]!r} is not supported; this is {API_VERSION}.",
        )
    if actions[0] not in operation_names():
        raise SesError(
            "InvalidAction",
            f"Could not find operation {actions[0]} for version {API_VERSION}",
        )
    return actions[0]
