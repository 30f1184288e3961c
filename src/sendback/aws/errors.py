"""SES errors: a wire code, its HTTP status, the fault (sender or receiver), and a text.

Source: SES API, "Common Errors". The three errors of the HTTP level are those that AWS documents as
common to its newer services (MalformedHttpRequestException, RequestEntityTooLargeException,
RequestTimeoutException), under their codes without the suffix, as in all SES codes. The SDKs retry
a request that timed out.

Values from a request are inserted into errors by `shown`, so that no response grows with its
request.
"""

from collections.abc import Mapping

from sendback.errors import SendbackError
from sendback.mail.printable import printable

# Maximum characters of an error's text, and of each of its members.
MAX_MESSAGE = 1024
MAX_VALIDATION_MESSAGE = 4096  # its only variable parts are names of members
MAX_MEMBER = 512
_MAX_VIOLATIONS = 20

# HTTP status by code; below 500 the fault is the sender's.
COMMON_ERRORS: dict[str, int] = {
    "AccessDenied": 403,
    "ExpiredToken": 403,
    "IncompleteSignature": 400,
    "InternalFailure": 500,
    "InvalidAction": 400,
    "InvalidClientTokenId": 403,
    "InvalidParameterCombination": 400,
    "InvalidParameterValue": 400,
    "InvalidQueryParameter": 400,
    "MalformedHttpRequest": 400,
    "MalformedInput": 400,
    "MalformedQueryString": 404,
    "MissingAction": 400,
    "MissingAuthenticationToken": 403,
    "MissingParameter": 400,
    "NotAuthorized": 400,
    "OptInRequired": 403,
    "RequestEntityTooLarge": 413,
    "RequestExpired": 400,
    "RequestTimeout": 408,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "Throttling": 400,
    "ValidationError": 400,
}


class SesError(SendbackError):
    """An error for the caller. `members` are the model's members other than Code and Message."""

    def __init__(
        self,
        code: str,
        message: str,
        members: Mapping[str, str] | None = None,
        *,
        http_status: int | None = None,
    ) -> None:
        """Cut the texts to their maximum length.

        `http_status` replaces the usual status of the code.
        """
        limit = MAX_VALIDATION_MESSAGE if code == "ValidationError" else MAX_MESSAGE
        self.code = code
        self.message = _cut(message, limit)
        super().__init__(code, self.message)
        self.members = {name: _cut(text, MAX_MEMBER) for name, text in (members or {}).items()}
        self._http_status = http_status

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def http_status(self) -> int:
        """The status of a common error as listed; 400 for an operation's own errors."""
        return self._http_status or COMMON_ERRORS.get(self.code, 400)

    @property
    def fault(self) -> str:
        """`Sender` or `Receiver`."""
        return "Receiver" if self.http_status >= 500 else "Sender"  # noqa: PLR2004


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(text: str) -> str:
    """Return a text from a request for use in an error: escaped, at most 200 characters."""
    return printable(text)


def identities_failed(identity: str, region: str) -> str:
    """Return the live service's text for an unverified sender."""
    return (
        "Email address is not verified. The following identities failed the check in region "
        f"{region.upper()}: {shown(identity)}"
    )


def message_rejected(text: str) -> SesError:
    """Return MessageRejected: the message could not be sent (SES API)."""
    return SesError("MessageRejected", text)


def invalid_value(member: str, reason: str) -> SesError:
    """Return InvalidParameterValue for a member with an invalid value.

    `reason` may repeat the value: it is cut to 300 characters.
    """
    return SesError("InvalidParameterValue", f"{shown(member)}: {printable(reason, 300)}")


def malformed_input(text: str) -> SesError:
    """Return MalformedInput, for a parameter that is not of the protocol's form."""
    return SesError("MalformedInput", text)


def service_unavailable() -> SesError:
    """Return ServiceUnavailable, after which the SDKs retry the call."""
    return SesError(
        "ServiceUnavailable", "The request has failed due to a temporary failure of the server."
    )


def malformed_http(text: str, http_status: int = 400) -> SesError:
    """Return MalformedHttpRequest, for an invalid HTTP request."""
    return SesError("MalformedHttpRequest", text, http_status=http_status)


def request_too_large(limit: int) -> SesError:
    """Return RequestEntityTooLarge, for a body of more than `limit` octets."""
    return SesError("RequestEntityTooLarge", f"The request body is larger than {limit} bytes.")


def request_timeout() -> SesError:
    """Return RequestTimeout, for a request that did not arrive in time."""
    return SesError("RequestTimeout", "The request was not received in time.")


def validation_error(violations: list[str]) -> SesError:
    """Return ValidationError with the first 20 violations, in AWS's wording."""
    noun = "error" if len(violations) == 1 else "errors"
    listed = violations[:_MAX_VIOLATIONS]
    more = ["…"] if len(violations) > len(listed) else []
    text = f"{len(violations)} validation {noun} detected: " + "; ".join([*listed, *more])
    return SesError("ValidationError", text)


def violation(path: str, constraint: str) -> str:
    """Return one violation: `Value at 'rule.name' failed to satisfy constraint: Member must …`."""
    return f"Value at '{path}' failed to satisfy constraint: Member must {constraint}"
