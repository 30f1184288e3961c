"""Verify Signature Version 4, in the Authorization header or in a presigned URL. Pure.

Theory of operation. `read_credentials` parses the claimed access key and the signed headers; the
caller looks up the secret; `verify` recomputes the signature. Before the signature is verified,
only malformed requests are refused. Source: "Signature
Version 4 for API requests" (AWS IAM User Guide), and SES's 15-minute window.

Rules: no part of a secret or of an expected signature in any error; comparison in constant time;
`host` and every `x-amz-*` header that was sent must be signed; the payload hash is that of the
body received, whatever a header claims.

All input is from an unauthenticated client. The HTTP layer bounds the header section and the query;
the canonical request is not longer than these, because no header may be signed twice. Access key,
session token and signature are checked to be printable ASCII before they are looked up or hashed.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import quote

from sendback.aws.errors import SesError, shown

ALGORITHM = "AWS4-HMAC-SHA256"
WINDOW = timedelta(minutes=15)
MAX_PRESIGNED = timedelta(days=7)
MAX_ACCESS_KEY = 128  # IAM API: AccessKeyId
MAX_SESSION_TOKEN = 8192  # STS documents no limit and tells to expect more than 4,096
SERVICES = ("ses", "email")  # `email` is what older tools sign

_MAX_SCOPE_AT = 512  # octets of an Authorization header: its Credential comes first
_MAX_HEADER_PARTS = 8  # Credential, SignedHeaders, Signature
_PRINTABLE = re.compile(r"[!-~]+")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_SPACES = re.compile(r" +")
_DATE = "%Y%m%dT%H%M%SZ"
_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A received request. Header names are in lower case; query pairs are decoded, in order.

    `payload_hash` is what is signed in place of the body's hash, if the body is not read yet (S3:
    x-amz-content-sha256); the caller compares it with the body.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes
    payload_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """The claimed credentials of a request, not to be trusted before `verify`."""

    access_key: str
    scope_date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    stamp: str  # X-Amz-Date as sent, 20150830T123600Z
    signed_at: datetime
    expires: timedelta | None  # of a presigned URL
    session_token: str | None

    @property
    def scope(self) -> str:
        return f"{self.scope_date}/{self.region}/{self.service}/aws4_request"


def header_fields(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return header fields by name; those of one name are joined, as SigV4 does (RFC 9110 §5.3).

    Names are in lower case already.
    """
    found: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for octets, value in fields:
        name = octets.decode("latin-1")
        text = value.decode("utf-8", "surrogateescape")  # keeps the signed octets
        if name in found:
            several.setdefault(name, [found[name]]).append(text)
        else:
            found[name] = text
    found.update((name, ",".join(texts)) for name, texts in several.items())
    return found


_SCOPE = re.compile(rb"/([a-z0-9-]{1,64})/aws4_request\b", re.IGNORECASE)


def claimed_service(authorization: bytes, query: bytes) -> str:
    """Return the service that the scope of a request names, unverified; "" without a scope."""
    match = _SCOPE.search(authorization[:_MAX_SCOPE_AT]) or _SCOPE.search(
        query.replace(b"%2F", b"/").replace(b"%2f", b"/")
    )
    return match[1].decode("ascii").lower() if match else ""


def read_credentials(request: SignedRequest) -> Credentials:
    """Return the claimed credentials of a request.

    Raise `SesError`: MissingAuthenticationToken, IncompleteSignature, InvalidClientTokenId or
    InvalidParameterCombination.
    """
    header = request.headers.get("authorization")
    query = dict(request.query)
    presigned = "X-Amz-Signature" in query or "X-Amz-Credential" in query
    if header and presigned:
        raise SesError(
            "InvalidParameterCombination",
            "Credentials may stand in the Authorization header or in the query, not in both.",
        )
    if presigned:
        return _from_query(query)
    if header:
        return _from_header(header, request.headers)
    raise SesError("MissingAuthenticationToken", "Request is missing Authentication Token")


def verify(
    request: SignedRequest,
    credentials: Credentials,
    secret: str,
    region: str,
    now: datetime,
    services: Sequence[str] = SERVICES,
) -> None:
    """Raise `SesError` unless `secret` made the signature, for this region and in time."""
    _check_scope(credentials, region, services)
    _check_signed_headers(request, credentials)
    if not _is_signed(request, credentials, secret):
        raise SesError(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check "
            "your AWS Secret Access Key and signing method. Consult the service documentation for "
            "details.",
        )
    _check_time(credentials, now)


def _is_signed(request: SignedRequest, credentials: Credentials, secret: str) -> bool:
    if not _SIGNATURE.fullmatch(credentials.signature):
        return False
    key = signing_key(secret, credentials)
    text = _string_to_sign(request, credentials)
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, credentials.signature)


def _from_header(header: str, headers: Mapping[str, str]) -> Credentials:
    algorithm, _, rest = header.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"The Authorization header must begin with {ALGORITHM}.")
    parts = _header_parts(rest)
    for name in ("Credential", "SignedHeaders", "Signature"):
        if name not in parts:
            raise _incomplete(f"Authorization header requires '{name}' parameter.")
    date = headers.get("x-amz-date") or headers.get("date")
    if not date:
        raise _incomplete("Authorization header requires existence of an 'X-Amz-Date' header.")
    return _credentials(
        parts["Credential"],
        parts["SignedHeaders"],
        parts["Signature"],
        date,
        None,
        headers.get("x-amz-security-token"),
    )


def _header_parts(text: str) -> dict[str, str]:
    """Return the parts of `Credential=…, SignedHeaders=…, Signature=…`, the last of each name."""
    pieces = text.split(",", _MAX_HEADER_PARTS)
    if len(pieces) > _MAX_HEADER_PARTS:
        raise _incomplete("The Authorization header has too many parts.")
    pairs = (piece.partition("=") for piece in pieces)
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}


def _from_query(query: Mapping[str, str]) -> Credentials:
    if query.get("X-Amz-Algorithm") != ALGORITHM:
        raise _incomplete(f"X-Amz-Algorithm must be {ALGORITHM}.")
    needed = ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date")
    for name in needed:
        if name not in query:
            raise _incomplete(f"A presigned request requires '{name}'.")
    seconds = query.get("X-Amz-Expires", "900")
    if not re.fullmatch(r"[0-9]{1,6}", seconds) or timedelta(seconds=int(seconds)) > MAX_PRESIGNED:
        raise _incomplete("X-Amz-Expires must be a number of seconds of at most 604800.")
    return _credentials(
        query["X-Amz-Credential"],
        query["X-Amz-SignedHeaders"],
        query["X-Amz-Signature"],
        query["X-Amz-Date"],
        timedelta(seconds=int(seconds)),
        query.get("X-Amz-Security-Token"),
    )


def _credentials(
    credential: str,
    signed_headers: str,
    signature: str,
    date: str,
    expires: timedelta | None,
    session_token: str | None,
) -> Credentials:
    pieces = credential.split("/", 5)
    if len(pieces) != 5 or pieces[4] != "aws4_request" or not all(pieces):  # noqa: PLR2004
        raise _incomplete("Credential must be ACCESS_KEY/DATE/REGION/SERVICE/aws4_request.")
    _check_token(pieces[0], MAX_ACCESS_KEY)
    if session_token is not None:
        _check_token(session_token, MAX_SESSION_TOKEN)
    return Credentials(
        access_key=pieces[0],
        scope_date=pieces[1],
        region=pieces[2],
        service=pieces[3],
        signed_headers=tuple(signed_headers.split(";")),
        signature=signature,
        stamp=date,
        signed_at=_date(date),
        expires=expires,
        session_token=session_token,
    )


def _check_token(text: str, limit: int) -> None:
    """Raise `SesError` for a malformed key or token: too long, or not printable ASCII."""
    if len(text) > limit or not _PRINTABLE.fullmatch(text):
        raise invalid_token()


def invalid_token() -> SesError:
    """Return InvalidClientTokenId: the access key or session token is unknown (SES API)."""
    return SesError(
        "InvalidClientTokenId", "The security token included in the request is invalid."
    )


def _date(text: str) -> datetime:
    match = _STAMP.fullmatch(text)
    try:
        if match:
            year, month, day, hour, minute, second = map(int, match.groups())
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        pass  # a 13th month, a 61st minute
    raise _incomplete("The date must be of the form 20150830T123600Z.")


def _incomplete(text: str) -> SesError:
    return SesError("IncompleteSignature", text)


def _check_scope(credentials: Credentials, region: str, services: Sequence[str]) -> None:
    if credentials.region != region:
        given = shown(credentials.region)
        text = f"Credential should be scoped to a valid region, not '{given}'."
    elif credentials.service not in services:
        given = shown(credentials.service)
        text = f"Credential should be scoped to correct service: '{services[0]}', not '{given}'."
    elif credentials.scope_date != credentials.stamp[:8]:
        text = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date."
    else:
        return
    raise SesError("SignatureDoesNotMatch", text)


def _check_signed_headers(request: SignedRequest, credentials: Credentials) -> None:
    names = credentials.signed_headers
    signed = set(names)
    if len(signed) < len(names):
        raise _incomplete("SignedHeaders names a header twice.")
    missing = sorted(signed - request.headers.keys())
    if missing:
        given = shown(", ".join(missing))
        raise _incomplete(f"SignedHeaders names headers that were not sent: {given}.")
    unsigned = sorted(
        name
        for name in request.headers
        if name not in signed and (name == "host" or name.startswith("x-amz-"))
    )
    if unsigned or "host" not in signed:
        given = shown(", ".join(unsigned)) or "host"
        raise SesError("SignatureDoesNotMatch", f"These headers must be signed: {given}.")


def _check_time(credentials: Credentials, now: datetime) -> None:
    signed_at = credentials.signed_at
    ahead = signed_at - now > WINDOW
    late = now - signed_at > (credentials.expires if credentials.expires is not None else WINDOW)
    if ahead or late:
        word = "not yet current" if ahead else "expired"
        raise SesError(
            "RequestExpired",
            f"Signature {word}: {credentials.stamp} is outside the window at {now:{_DATE}}.",
        )


def signing_key(secret: str, credentials: Credentials) -> bytes:
    """Return the key that signs requests, and the chunks of a body, of these credentials."""
    return _signing_key(secret, credentials.scope_date, credentials.region, credentials.service)


@lru_cache(maxsize=1024)
def _signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """Return the signing key, which is constant for a day: caching it halves the work."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _string_to_sign(request: SignedRequest, credentials: Credentials) -> str:
    canonical = _canonical_request(request, credentials).encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(canonical).hexdigest()
    return f"{ALGORITHM}\n{credentials.stamp}\n{credentials.scope}\n{digest}"


def _canonical_request(request: SignedRequest, credentials: Credentials) -> str:
    headers = "".join(
        f"{name}:{_SPACES.sub(' ', request.headers[name].strip())}\n"
        for name in credentials.signed_headers
    )
    return "\n".join(
        (
            request.method,
            quote(request.path, safe="/-_.~") or "/",
            _canonical_query(request.query),
            headers,
            ";".join(credentials.signed_headers),
            request.payload_hash or hashlib.sha256(request.body).hexdigest(),
        )
    )


def _canonical_query(query: Sequence[tuple[str, str]]) -> str:
    encoded = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in query
        if name != "X-Amz-Signature"
    )
    return "&".join(f"{name}={value}" for name, value in encoded)
