"""The XML documents of S3: errors, listings, the result of a copy. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from sendback.aws.response import escape
from sendback.s3.errors import S3Error
from sendback.s3.requests import Listing

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object of a listing; `etag` without quotes."""

    key: str
    size: int
    modified: datetime
    etag: str


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing. `token` is the continuation token, None on the last page."""

    objects: Sequence[ListedObject]
    prefixes: Sequence[str]
    token: str | None


def encode_error(error: S3Error, resource: str, request_id: str) -> bytes:
    """Return `<Error>`, with Code and Message first."""
    members = {
        "Code": error.code,
        "Message": error.message,
        **error.members,
        "Resource": resource,
        "RequestId": request_id,
    }
    return _document("Error", _elements(members), namespace="")


def encode_listing(bucket: str, listing: Listing, page: Page, owner: str | None = None) -> bytes:
    """Return `<ListBucketResult>` of ListObjectsV2; `owner` is the account, if asked for."""

    def name(text: str) -> str:
        return quote(text, safe="/-_.~") if listing.encode else text

    members = {
        "Name": bucket,
        "Prefix": name(listing.prefix),
        "Delimiter": name(listing.delimiter),
        "MaxKeys": str(listing.max_keys),
        "EncodingType": "url" if listing.encode else "",
        "ContinuationToken": listing.token,
        "StartAfter": name(listing.start_after),
        "KeyCount": str(len(page.objects) + len(page.prefixes)),
        "IsTruncated": "true" if page.token else "false",
        "NextContinuationToken": page.token or "",
    }
    given = {key: text for key, text in members.items() if text or key == "Prefix"}
    content = [_elements(given)]
    content += [_listed(entry, name(entry.key), owner) for entry in page.objects]
    content += [
        f"<CommonPrefixes>{_elements({'Prefix': name(prefix)})}</CommonPrefixes>"
        for prefix in page.prefixes
    ]
    return _document("ListBucketResult", "".join(content))


def _listed(entry: ListedObject, name: str, owner: str | None) -> str:
    fields = {
        "Key": name,
        "LastModified": xml_date(entry.modified),
        "ETag": f'"{entry.etag}"',
        "Size": str(entry.size),
    }
    of_owner = f"<Owner><ID>{owner}</ID></Owner>" if owner else ""
    return (
        f"<Contents>{_elements(fields)}{of_owner}<StorageClass>STANDARD</StorageClass></Contents>"
    )


def encode_copy(etag: str, modified: datetime) -> bytes:
    """Return `<CopyObjectResult>`."""
    members = {"LastModified": xml_date(modified), "ETag": f'"{etag}"'}
    return _document("CopyObjectResult", _elements(members))


def xml_date(date: datetime) -> str:
    """Return a date as in S3's documents: 2026-03-01T12:00:00.000Z."""
    date = date.astimezone(UTC)
    return f"{date:%Y-%m-%dT%H:%M:%S}.{date.microsecond // 1000:03}Z"


def _elements(members: dict[str, str]) -> str:
    return "".join(f"<{name}>{escape(text)}</{name}>" for name, text in members.items())


def _document(root: str, content: str, namespace: str = _NAMESPACE) -> bytes:
    attribute = f' xmlns="{namespace}"' if namespace else ""
    return f"{_DECLARATION}<{root}{attribute}>{content}</{root}>".encode()
