"""Requests of S3 in path style: which operation, which object, which options. Pure.

The table `_OPERATIONS` has what is implemented, with the query parameters that each takes. A
request with any other parameter is another operation of S3, or another variant of one, and is
`NotImplemented`; so are headers that ask for what this server does not do.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes

from sendback.aws.object_keys import MAX_KEY, ObjectKeyError, key_parts
from sendback.s3.checksums import ALGORITHMS, PREFIX
from sendback.s3.errors import S3Error, invalid_argument, not_implemented

MAX_KEYS = 1000
MAX_METADATA = 2048  # octets of names and values, as S3
MAX_OBJECT = 64 * 2**20
META = "x-amz-meta-"
# The headers of an object besides its metadata.
KEPT_HEADERS = (
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
)
DEFAULT_TYPE = "binary/octet-stream"  # S3's

_OF_SIGNING = "x-amz-"  # parameters of presigned URLs begin with it
_RESPONSES = tuple(f"response-{name}" for name in KEPT_HEADERS)
_LISTING = (
    "list-type", "prefix", "delimiter", "max-keys", "continuation-token", "start-after",
    "encoding-type", "fetch-owner",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation: the query parameters that it takes."""

    name: str
    parameters: tuple[str, ...] = ()


_OPERATIONS: Mapping[tuple[str, bool], Operation] = {  # by method, and whether there is a key
    ("GET", False): Operation("ListObjectsV2", _LISTING),
    ("HEAD", False): Operation("HeadBucket"),
    ("GET", True): Operation("GetObject", _RESPONSES),
    ("HEAD", True): Operation("HeadObject", _RESPONSES),
    ("PUT", True): Operation("PutObject"),
    ("DELETE", True): Operation("DeleteObject"),
}
_COPY = Operation("CopyObject")

# Headers that ask for something, and the values for which nothing has to be done.
_HEADERS: Mapping[str, frozenset[str]] = {
    "x-amz-acl": frozenset({"private", "bucket-owner-full-control"}),
    "x-amz-storage-class": frozenset({"STANDARD"}),
    "x-amz-metadata-directive": frozenset({"COPY", "REPLACE"}),
    "x-amz-tagging-directive": frozenset({"COPY", "REPLACE"}),
    "x-amz-request-payer": frozenset({"requester"}),
    "x-amz-checksum-mode": frozenset({"ENABLED"}),
    "x-amz-checksum-type": frozenset({"FULL_OBJECT"}),
}
# Headers that are read elsewhere, or that are about the request itself.
_READ_HEADERS = frozenset(
    {
        "x-amz-content-sha256", "x-amz-copy-source", "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-modified-since", "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-if-unmodified-since", "x-amz-checksum-algorithm", "x-amz-date",
        "x-amz-decoded-content-length", "x-amz-expected-bucket-owner",
        "x-amz-sdk-checksum-algorithm", "x-amz-security-token",
        "x-amz-source-expected-bucket-owner", "x-amz-trailer", "x-amz-user-agent",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ObjectRequest:
    """A request for a bucket, or for an object in it (`key`)."""

    operation: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


def decode_path(raw_path: bytes) -> str:
    """Return a percent-encoded path as text. Raise `S3Error`: InvalidURI unless it is UTF-8."""
    try:
        return unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "Couldn't parse the specified URI.") from None


def read_target(path: str) -> tuple[str, str]:
    """Return (bucket, key) of a decoded path. Raise `S3Error`."""
    bucket, _, key = path.removeprefix("/").partition("/")
    if len(key.encode()) > MAX_KEY:
        raise S3Error("KeyTooLongError", "Your key is too long")
    return bucket, key


def read_request(
    method: str,
    target: tuple[str, str],
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
) -> ObjectRequest:
    """Return the request. Raise `S3Error`: NotImplemented for all that is not in the tables."""
    bucket, key = target
    operation = _OPERATIONS.get((method, bool(key))) if bucket else None
    if operation is None:
        raise not_implemented(f"{method} {'of an object' if key else 'of a bucket'}")
    if operation.name == "PutObject" and "x-amz-copy-source" in headers:
        operation = _COPY
    names = [name for name, _ in query]
    # `x-id` is how newer SDKs name the operation.
    given = [name for name in names if name.lower()[:6] != _OF_SIGNING and name != "x-id"]
    unknown = [name for name in given if name not in operation.parameters]
    if unknown:
        raise not_implemented(f"{method} with ?{unknown[0]}")
    if len(set(given)) < len(given):
        raise S3Error("InvalidArgument", "A query parameter is given twice.")
    if operation.name == "ListObjectsV2" and dict(query).get("list-type") != "2":
        raise not_implemented("ListObjects; use ListObjectsV2 (list-type=2)")
    _check_headers(headers)
    return ObjectRequest(operation.name, bucket, key, dict(query), headers)


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not name.startswith("x-amz-") or name in _READ_HEADERS:
            continue
        if name.startswith(META) or name.removeprefix(PREFIX) in ALGORITHMS:
            continue
        if value not in _HEADERS.get(name, frozenset()):
            raise not_implemented(f"{name}: {value}")


# --- listing ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listing:
    """The options of ListObjectsV2. `after` is the last key, or common prefix, to leave out."""

    prefix: str
    delimiter: str
    max_keys: int
    start_after: str
    token: str
    after: str
    encode: bool


def read_listing(query: Mapping[str, str]) -> Listing:
    """Return the options. Raise `S3Error`."""
    encoding = query.get("encoding-type", "")
    if encoding not in {"", "url"}:
        raise invalid_argument("encoding-type", encoding, "must be url")
    number = query.get("max-keys", str(MAX_KEYS))
    if not re.fullmatch(r"[0-9]{1,9}", number):
        raise invalid_argument("max-keys", number, "must be a number from 0 to 2147483647")
    token = query.get("continuation-token", "")
    start_after = query.get("start-after", "")
    return Listing(
        prefix=query.get("prefix", ""),
        delimiter=query.get("delimiter", ""),
        max_keys=min(int(number), MAX_KEYS),
        start_after=start_after,
        token=token,
        after=_read_token(token) if "continuation-token" in query else start_after,
        encode=encoding == "url",
    )


def token_for(last: str) -> str:
    """Return the continuation token for the page behind the key or common prefix `last`."""
    return base64.urlsafe_b64encode(last.encode()).decode("ascii")


def _read_token(token: str) -> str:
    try:
        last = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        last = ""
    if not last:
        raise invalid_argument(
            "continuation-token", token, "must be the NextContinuationToken of an earlier response"
        )
    return last


# --- objects ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Headers:
    """What is kept with an object besides its octets: headers in lower case, without prefixes."""

    fields: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_kept_headers(headers: Mapping[str, str]) -> Headers:
    """Return the headers of a PutObject that are kept. Raise `S3Error`."""
    fields = {name: headers[name] for name in KEPT_HEADERS if headers.get(name)}
    encodings = [part.strip() for part in fields.pop("content-encoding", "").split(",")]
    encoding = ",".join(part for part in encodings if part and part != "aws-chunked")
    if encoding:
        fields["content-encoding"] = encoding
    metadata = {
        name.removeprefix(META): value.strip()
        for name, value in headers.items()
        if name.startswith(META)
    }
    for name, value in (*fields.items(), *metadata.items()):
        check_header_value(name, value)
    if sum(len(name) + len(_octets(value)) for name, value in metadata.items()) > MAX_METADATA:
        raise S3Error(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
            {"MaxSizeAllowed": str(MAX_METADATA)},
        )
    return Headers(fields, metadata)


def check_header_value(name: str, value: str) -> None:
    """Raise `S3Error` for what cannot be a header's value: it could begin another header."""
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):  # noqa: PLR2004
        raise invalid_argument(name, value, "has a control character")


def _octets(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def writable_parts(key: str) -> tuple[str, ...]:
    """Return the path of a key that is to be written. Raise `S3Error`."""
    try:
        return key_parts(key)
    except ObjectKeyError as error:
        reason = f"cannot be a path in the directory of this bucket: {error}"
        raise invalid_argument("Key", key, reason) from None


def read_copy_source(value: str) -> tuple[str, str]:
    """Return (bucket, key) of x-amz-copy-source: percent-encoded, with or without a first slash."""
    if "?" in value:
        raise not_implemented("a version of an object (versionId)")
    bucket, key = read_target(decode_path(value.encode("utf-8", "surrogateescape")))
    if not bucket or not key:
        raise invalid_argument("x-amz-copy-source", value, "must be BUCKET/KEY")
    return bucket, key


def read_size(headers: Mapping[str, str]) -> int | None:
    """Return the announced size of the object, None if it is not; raise `S3Error`."""
    is_chunked = headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
    name = "x-amz-decoded-content-length" if is_chunked else "content-length"
    text = headers.get(name)
    if text is None and "transfer-encoding" not in headers:
        text = "0"
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise invalid_argument(name, text, "must be a number of bytes")
    if int(text) > MAX_OBJECT:
        raise too_large(int(text))
    return int(text)


def too_large(size: int) -> S3Error:
    """Return EntityTooLarge, with the limit."""
    return S3Error(
        "EntityTooLarge",
        "Your proposed upload exceeds the maximum allowed size",
        {"ProposedSize": str(size), "MaxSizeAllowed": str(MAX_OBJECT)},
    )


# --- conditions and ranges -------------------------------------------------------------------


def check_conditions(
    headers: Mapping[str, str], etag: str, modified: datetime, prefix: str = "", *, copies: bool
) -> None:
    """Raise `S3Error` unless the conditions of a read hold (RFC 9110 §13.2.2).

    `prefix` is that of the headers about the source of a copy, for which nothing is `NotModified`.
    """
    failed = S3Error(
        "PreconditionFailed", "At least one of the pre-conditions you specified did not hold"
    )
    unchanged = failed if copies else S3Error("NotModified", "Not Modified")
    match, none_match = headers.get(f"{prefix}if-match"), headers.get(f"{prefix}if-none-match")
    since = _date(headers.get(f"{prefix}if-modified-since"))
    until = _date(headers.get(f"{prefix}if-unmodified-since"))
    if match is not None:
        if not _names(match, etag):
            raise failed
    elif until is not None and modified > until:
        raise failed
    if none_match is not None:
        if _names(none_match, etag):
            raise unchanged
    elif since is not None and modified <= since:
        raise unchanged


def _names(condition: str, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in condition.split(",")]
    return "*" in tags or etag in tags


def _date(text: str | None) -> datetime | None:
    try:
        date = parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError):
        return None
    if date is None:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def read_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and last octet, or None for the whole. Raise `S3Error`: InvalidRange.

    As S3, several ranges and other units are ignored (RFC 9110 §14.2).
    """
    match = _RANGE.fullmatch(text.strip()) if text else None
    if match is None or not (match[1] or match[2]):
        return None
    first = int(match[1]) if match[1] else max(size - int(match[2]), 0)
    last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
    if match[1] and match[2] and int(match[2]) < first:
        return None
    if first >= size or (not match[1] and not int(match[2])):
        raise S3Error(
            "InvalidRange",
            "The requested range is not satisfiable",
            {"RangeRequested": text or "", "ActualObjectSize": str(size)},
        )
    return first, last
