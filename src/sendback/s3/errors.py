"""Errors of S3: a code, its HTTP status, a text, and members. Pure.

Source: S3 API, "Error responses". A header or parameter that S3 has and this server does not
implement is `NotImplemented`, in S3's own words for it.
"""

from collections.abc import Mapping

from sendback.aws.errors import SesError
from sendback.errors import SendbackError
from sendback.mail.printable import printable

STATUSES: Mapping[str, int] = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "BadDigest": 400,
    "EntityTooLarge": 400,
    "ExpiredToken": 400,
    "IncompleteBody": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidDigest": 400,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidToken": 400,
    "InvalidURI": 400,
    "KeyTooLongError": 400,
    "MetadataTooLarge": 400,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NotImplemented": 501,
    "NotModified": 304,
    "PreconditionFailed": 412,
    "RequestTimeTooSkewed": 403,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "XAmzContentSHA256Mismatch": 400,
}
_MAX_MESSAGE = 1024


class S3Error(SendbackError):
    """An error for the caller. `members` are elements besides Code and Message."""

    def __init__(self, code: str, message: str, members: Mapping[str, str] | None = None) -> None:
        self.code = code
        self.message = message[:_MAX_MESSAGE]
        self.members = {name: printable(text, 1024) for name, text in (members or {}).items()}
        super().__init__(f"{code}: {self.message}")

    @property
    def status(self) -> int:
        return STATUSES[self.code]


def not_implemented(what: str) -> S3Error:
    """Return NotImplemented; `what` may repeat what the client sent."""
    text = f"This server implements a part of S3 (docs/receiving.md), without: {printable(what)}"
    return S3Error("NotImplemented", text)


def no_such_bucket(bucket: str) -> S3Error:
    """Return NoSuchBucket."""
    return S3Error("NoSuchBucket", "The specified bucket does not exist", {"BucketName": bucket})


def no_such_key(key: str) -> S3Error:
    """Return NoSuchKey."""
    return S3Error("NoSuchKey", "The specified key does not exist.", {"Key": key})


def invalid_argument(name: str, value: str, reason: str) -> S3Error:
    """Return InvalidArgument for a parameter or header; `reason` begins with a verb."""
    return S3Error(
        "InvalidArgument",
        f"{name} {reason}",
        {"ArgumentName": name, "ArgumentValue": value},
    )


# S3's codes for what the verification of a signature reports in SES's.
_OF_SIGNATURES: Mapping[str, tuple[str, str]] = {
    "MissingAuthenticationToken": ("AccessDenied", "Access Denied"),
    "InvalidClientTokenId": (
        "InvalidAccessKeyId",
        "The AWS Access Key Id you provided does not exist in our records.",
    ),
    "ExpiredToken": ("ExpiredToken", "The provided token has expired."),
    "InvalidParameterCombination": (
        "InvalidArgument",
        "Credentials are allowed in the Authorization header or in the query, not in both.",
    ),
}


def of_signature(error: SesError, *, presigned: bool) -> S3Error:
    """Return S3's form of an error that `aws.sigv4` or the look-up of the key raised."""
    if error.code in _OF_SIGNATURES:
        return S3Error(*_OF_SIGNATURES[error.code])
    if error.code == "IncompleteSignature":
        kind = "QueryParametersError" if presigned else "HeaderMalformed"
        return S3Error(f"Authorization{kind}", error.message)
    if error.code == "RequestExpired" and presigned:
        return S3Error("AccessDenied", f"Request has expired. {error.message}")
    if error.code == "RequestExpired":
        text = "The difference between the request time and the current time is too large."
        return S3Error("RequestTimeTooSkewed", f"{text} {error.message}")
    if error.code == "SignatureDoesNotMatch":
        return S3Error("SignatureDoesNotMatch", error.message)
    return S3Error("InvalidRequest", error.message)
