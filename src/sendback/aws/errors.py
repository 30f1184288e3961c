"""SES errors as types: a wire code, its HTTP status, whose fault it is, and a text.

SES API, "Common Errors"; SES.md of the project records which of them the live service gives.
"""

from collections.abc import Mapping

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
    "MalformedQueryString": 404,
    "MissingAction": 400,
    "MissingAuthenticationToken": 403,
    "MissingParameter": 400,
    "NotAuthorized": 400,
    "OptInRequired": 403,
    "RequestExpired": 400,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "Throttling": 400,
    "ValidationError": 400,
}


class SesError(Exception):
    """An error that the caller gets. `members` are the model's extra ones beside Code, Message."""

    def __init__(self, code: str, message: str, members: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.members = members or {}

    @property
    def http_status(self) -> int:
        """Of a common error as listed; an operation's own errors are 400."""
        return COMMON_ERRORS.get(self.code, 400)

    @property
    def fault(self) -> str:
        """`Sender` or `Receiver`."""
        return "Receiver" if self.http_status >= 500 else "Sender"  # noqa: PLR2004


def identities_failed(identity: str, region: str) -> str:
    """The live service's words for a sender that is not verified."""
    return (
        "Email address is not verified. The following identities failed the check in region "
        f"{region.upper()}: {identity}"
    )


def message_rejected(text: str) -> SesError:
    """SES API: MessageRejected. The action failed and the message could not be sent."""
    return SesError("MessageRejected", text)


def invalid_value(member: str, reason: str) -> SesError:
    """A value that is well-formed for the model and wrong all the same; names the member."""
    return SesError("InvalidParameterValue", f"{member}: {reason}")


def service_unavailable() -> SesError:
    """The store cannot write at the moment; the SDKs repeat the call by themselves."""
    return SesError(
        "ServiceUnavailable", "The request has failed due to a temporary failure of the server."
    )


def validation_error(violations: list[str]) -> SesError:
    """All constraint violations in one, in AWS's wording."""
    noun = "error" if len(violations) == 1 else "errors"
    text = f"{len(violations)} validation {noun} detected: " + "; ".join(violations)
    return SesError("ValidationError", text)


def violation(path: str, constraint: str) -> str:
    """One of them: `Value at 'rule.name' failed to satisfy constraint: Member must …`."""
    return f"Value at '{path}' failed to satisfy constraint: Member must {constraint}"
