"""SES errors as types: a wire code, its HTTP status, whose fault it is, and a text.

SES API, "Common Errors"; SES.md of the project records which of them the live service gives. The
three errors of the HTTP level are those that AWS documents as common to its newer services
(MalformedHttpRequestException, RequestEntityTooLargeException, RequestTimeoutException), under
their codes without the suffix, as SES writes all codes. The SDKs repeat a request that timed out.

What a request sent is written into an error by `shown`, so that no answer grows with its request.
"""

from collections.abc import Mapping

from sendback.errors import SendbackError
from sendback.mail.printable import printable

# Characters of an error's text, and of each of its members, whatever it is made of.
MAX_MESSAGE = 1024
MAX_VALIDATION_MESSAGE = 4096  # it repeats nothing but the names of members
MAX_MEMBER = 512
_MAX_VIOLATIONS = 20

# code: HTTP status; everything below 500 is the sender's fault.
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
    """An error that the caller gets. `members` are the model's extra ones beside Code, Message."""

    def __init__(
        self,
        code: str,
        message: str,
        members: Mapping[str, str] | None = None,
        *,
        http_status: int | None = None,
    ) -> None:
        """Cut the texts to the characters that they may have.

        `http_status` is for an error whose status is not the one that its code usually has.
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
        """Of a common error as listed; an operation's own errors are 400."""
        return self._http_status or COMMON_ERRORS.get(self.code, 400)

    @property
    def fault(self) -> str:
        """`Sender` or `Receiver`."""
        return "Receiver" if self.http_status >= 500 else "Sender"  # noqa: PLR2004


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shown(text: str) -> str:
    """Return what a request sent as an error may repeat it: visible, at most 200 characters."""
    return printable(text)


def identities_failed(identity: str, region: str) -> str:
    """The live service's words for a sender that is not verified."""
    return (
        "Email address is not verified. The following identities failed the check in region "
        f"{region.upper()}: {shown(identity)}"
    )


def message_rejected(text: str) -> SesError:
    """SES API: MessageRejected. The action failed and the message could not be sent."""
    return SesError("MessageRejected", text)


def invalid_value(member: str, reason: str) -> SesError:
    """A value that is well-formed for the model and wrong all the same; names the member.

    `reason` may repeat the value: it is cut.
    """
    return SesError("InvalidParameterValue", f"{shown(member)}: {printable(reason, 300)}")


def service_unavailable() -> SesError:
    """The server cannot do it at the moment; the SDKs repeat the call by themselves."""
    return SesError(
        "ServiceUnavailable", "The request has failed due to a temporary failure of the server."
    )


def malformed_http(text: str, http_status: int = 400) -> SesError:
    """A request that is wrong at the level of HTTP."""
    return SesError("MalformedHttpRequest", text, http_status=http_status)


def request_too_large(limit: int) -> SesError:
    """A body of more than `limit` octets."""
    return SesError("RequestEntityTooLarge", f"The request body is larger than {limit} bytes.")


def request_timeout() -> SesError:
    """A request that did not arrive in time."""
    return SesError("RequestTimeout", "The request was not received in time.")


def validation_error(violations: list[str]) -> SesError:
    """All constraint violations in one, in AWS's wording; of very many, the first 20."""
    noun = "error" if len(violations) == 1 else "errors"
    listed = violations[:_MAX_VIOLATIONS]
    more = ["…"] if len(violations) > len(listed) else []
    text = f"{len(violations)} validation {noun} detected: " + "; ".join([*listed, *more])
    return SesError("ValidationError", text)


def violation(path: str, constraint: str) -> str:
    """One of them: `Value at 'rule.name' failed to satisfy constraint: Member must …`."""
    return f"Value at '{path}' failed to satisfy constraint: Member must {constraint}"
