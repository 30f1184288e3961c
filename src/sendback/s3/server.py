"""The ASGI application of the small S3: verify, authorize, find the bucket, do, respond.

Every request is verified before its body is read. An upload is streamed to a file: at most a few
hundred kilobytes of it are in memory. All work on files is done in threads. Only this module turns
errors into responses; one to a HEAD request has no body, as in S3.
"""

import asyncio
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import format_datetime
from time import monotonic
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from sendback.aws.sigv4 import SignedRequest, header_fields
from sendback.ids import IdMaker
from sendback.log_limits import LogLimiter
from sendback.s3.authentication import Authenticated, S3Authenticator
from sendback.s3.buckets import Buckets
from sendback.s3.checksums import PREFIX
from sendback.s3.chunks import UNSIGNED, ChunkedPayload, Payload, payload_form
from sendback.s3.directory import READ_OCTETS, Directory, ObjectData, OpenObject
from sendback.s3.errors import S3Error, not_implemented
from sendback.s3.listing import list_page
from sendback.s3.requests import (
    DEFAULT_TYPE,
    KEPT_HEADERS,
    META,
    Headers,
    ObjectRequest,
    check_conditions,
    check_header_value,
    decode_path,
    read_copy_source,
    read_kept_headers,
    read_listing,
    read_range,
    read_request,
    read_size,
    read_target,
    writable_parts,
)
from sendback.s3.uploads import ClientGoneError, Receiver, read_expected
from sendback.s3.xml import encode_copy, encode_error, encode_listing
from sendback.service.access.authorization import Authorization
from sendback.service.access.caller import CallOrigin
from sendback.store.engine.errors import StoreUnavailableError

log = logging.getLogger(__name__)

MAX_USER_AGENT = 2048
_MAX_PARAMETERS = 100
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_XML = [(b"content-type", b"application/xml")]
_SOURCE = "x-amz-copy-source"

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Response:
    """A response: a body in memory, or a part of an open object, which is closed behind it."""

    status: int
    fields: Fields
    body: bytes = b""
    file: OpenObject | None = None
    first: int = 0
    octets: int = 0


@dataclass(frozen=True, slots=True)
class _Call:
    """A verified request."""

    request: ObjectRequest
    identity: Authenticated
    origin: CallOrigin
    content_sha256: str
    receive: Receive

    @property
    def account_id(self) -> str:
        return self.identity.caller.account_id


class S3App:
    """Serves the buckets of all accounts, each to its own account's users."""

    def __init__(
        self,
        authenticator: S3Authenticator,
        authorization: Authorization,
        buckets: Buckets,
        ids: IdMaker,
        min_free: int,
    ) -> None:
        """`min_free`: octets of the disk that uploads leave free."""
        self._authenticator = authenticator
        self._authorization = authorization
        self._buckets = buckets
        self._ids = ids
        self._min_free = min_free
        self._log_limiter = LogLimiter()
        self._operations = {
            "CopyObject": self._copy_object,
            "DeleteObject": self._delete_object,
            "GetObject": self._get_object,
            "HeadBucket": self._head_bucket,
            "HeadObject": self._get_object,
            "ListObjectsV2": self._list_objects,
            "PutObject": self._put_object,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._ids.request()
        try:
            response = await self._run(scope, receive)
        except ClientGoneError:
            return
        except S3Error as error:
            response = _error_response(error, scope, request_id)
        except StoreUnavailableError:
            text = "Please reduce your request rate."
            response = _error_response(S3Error("ServiceUnavailable", text), scope, request_id)
        except Exception as error:
            more = self._log_limiter.check(repr(type(error)), monotonic())
            if more is not None:
                log.exception("request %s failed%s", request_id, more)
            text = "We encountered an internal error. Please try again."
            response = _error_response(S3Error("InternalError", text), scope, request_id)
        identified = replace(
            response, fields=[*response.fields, (b"x-amz-request-id", request_id.encode("ascii"))]
        )
        try:
            await _send(identified, send)
        finally:
            if response.file is not None:
                response.file.close()

    async def _run(self, scope: Scope, receive: Receive) -> _Response:
        headers = header_fields(scope["headers"])
        origin = _origin(scope, headers)
        query = _read_query(scope["query_string"])
        method, path = scope["method"], decode_path(scope["raw_path"])
        target = read_target(path)
        content_sha256 = _content_sha256(headers, dict(query))
        signed = SignedRequest(method, path, query, headers, b"", content_sha256)
        identity = await self._authenticator.authenticate(signed)
        request = read_request(method, target, query, headers)
        _check_owner(headers, identity.caller.account_id)
        call = _Call(request, identity, origin, content_sha256, receive)
        if request.operation != "PutObject":
            _check_no_body(content_sha256)
        return await self._operations[request.operation](call)

    def _authorize(
        self,
        call: _Call,
        action: str,
        bucket: str,
        key: str | None = None,
        keys: Mapping[str, list[str]] | None = None,
    ) -> None:
        resource = f"arn:aws:s3:::{bucket}" if key is None else f"arn:aws:s3:::{bucket}/{key}"
        caller = call.identity.caller
        if not self._authorization.permits(caller, call.origin, action, resource, keys or {}):
            text = f'User: {caller.arn} is not authorized to perform: {action} on "{resource}"'
            raise S3Error("AccessDenied", text)

    # --- buckets ----------------------------------------------------------------------------

    async def _head_bucket(self, call: _Call) -> _Response:
        bucket = call.request.bucket
        self._authorize(call, "s3:ListBucket", bucket)
        await self._buckets.find(call.account_id, bucket)
        return _Response(
            200, [*_XML, (b"x-amz-bucket-region", self._authenticator.region.encode())]
        )

    async def _list_objects(self, call: _Call) -> _Response:
        bucket, query = call.request.bucket, call.request.query
        listing = read_listing(query)
        conditions = {f"s3:{name}": [query[name]] for name in _CONDITIONS if name in query}
        self._authorize(call, "s3:ListBucket", bucket, keys=conditions)
        directory = await self._buckets.find(call.account_id, bucket)
        owner = call.account_id if query.get("fetch-owner") == "true" else None

        def work() -> bytes:
            return encode_listing(bucket, listing, list_page(directory, listing), owner)

        return _Response(200, _XML, await asyncio.to_thread(work))

    # --- reading ----------------------------------------------------------------------------

    async def _get_object(self, call: _Call) -> _Response:
        request = call.request
        self._authorize(call, "s3:GetObject", request.bucket, request.key)
        directory = await self._buckets.find(call.account_id, request.bucket)
        file = await asyncio.to_thread(directory.open, request.key)
        try:
            return _object_response(request, file)
        except BaseException:
            file.close()
            raise

    # --- writing ----------------------------------------------------------------------------

    async def _put_object(self, call: _Call) -> _Response:
        request = call.request
        parts = writable_parts(request.key)
        kept = read_kept_headers(request.headers)
        only_new = _reads_only_new(request.headers)
        expected = read_expected(request.headers, read_size(request.headers))
        form = payload_form(call.content_sha256)
        self._authorize(call, "s3:PutObject", request.bucket, request.key)
        directory = await self._buckets.find(call.account_id, request.bucket)
        signer = call.identity.chunks
        payload = ChunkedPayload(form, signer) if form.is_chunked else Payload(form)
        upload = await asyncio.to_thread(directory.begin, self._min_free + (expected.size or 0))
        try:
            checksums = await Receiver(upload, payload, expected).receive(call.receive)
            data = await asyncio.to_thread(
                directory.store, upload, parts, kept, checksums, only_new=only_new
            )
        finally:
            await asyncio.to_thread(upload.discard)
        fields = [(b"etag", f'"{data.etag}"'.encode()), *_checksum_fields(data)]
        return _Response(200, fields)

    async def _copy_object(self, call: _Call) -> _Response:
        request = call.request
        source = read_copy_source(request.headers[_SOURCE])
        parts = writable_parts(request.key)
        replaces = request.headers.get("x-amz-metadata-directive") == "REPLACE"
        kept = read_kept_headers(request.headers) if replaces else None
        if source == (request.bucket, request.key) and not _changes(request.headers):
            raise S3Error(
                "InvalidRequest",
                "This copy request is illegal because it is trying to copy an object to itself "
                "without changing the object's metadata, storage class, website redirect location "
                "or encryption attributes.",
            )
        self._authorize(call, "s3:GetObject", *source)
        self._authorize(call, "s3:PutObject", request.bucket, request.key)
        from_directory = await self._buckets.find(call.account_id, source[0])
        to_directory = await self._buckets.find(call.account_id, request.bucket)

        def work() -> ObjectData:
            file = from_directory.open(source[1])
            try:
                data = file.data
                check_conditions(
                    request.headers, data.etag, data.modified, f"{_SOURCE}-", copies=True
                )
                return _copy(file, to_directory, parts, kept or data.headers, self._min_free)
            finally:
                file.close()

        data = await asyncio.to_thread(work)
        return _Response(200, _XML, encode_copy(data.etag, data.modified))

    async def _delete_object(self, call: _Call) -> _Response:
        request = call.request
        if "if-match" in request.headers:
            raise not_implemented("If-Match of DeleteObject")
        self._authorize(call, "s3:DeleteObject", request.bucket, request.key)
        directory = await self._buckets.find(call.account_id, request.bucket)
        await asyncio.to_thread(directory.delete, request.key)
        return _Response(204, [])


_CONDITIONS = ("prefix", "delimiter", "max-keys")


def _copy(
    file: OpenObject, to: Directory, parts: Sequence[str], headers: Headers, min_free: int
) -> ObjectData:
    upload = to.begin(min_free + file.data.size)
    try:
        while octets := file.read(upload.size, READ_OCTETS):
            upload.write(octets)
        return to.store(upload, parts, headers, file.data.checksums, only_new=False)
    finally:
        upload.discard()


def _changes(headers: Mapping[str, str]) -> bool:
    """Whether a copy of an object to itself changes something, as S3 demands."""
    replaces = headers.get("x-amz-metadata-directive") == "REPLACE"
    return replaces or "x-amz-storage-class" in headers


def _reads_only_new(headers: Mapping[str, str]) -> bool:
    if "if-match" in headers or headers.get("if-none-match", "*") != "*":
        raise not_implemented("a condition of PutObject other than If-None-Match: *")
    return "if-none-match" in headers


# --- requests --------------------------------------------------------------------------------


def _origin(scope: Scope, headers: Mapping[str, str]) -> CallOrigin:
    user_agent = headers.get("user-agent", "")
    if len(user_agent) > MAX_USER_AGENT:
        text = f"User-Agent must be at most {MAX_USER_AGENT} characters"
        raise S3Error("InvalidRequest", text)
    client = scope["client"]
    return CallOrigin(client[0] if client else "", user_agent, scope["scheme"] == "https")


def _read_query(octets: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            octets.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError:  # UnicodeDecodeError is one
        raise S3Error("InvalidURI", "Couldn't parse the specified URI.") from None


def _content_sha256(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    given = headers.get("x-amz-content-sha256") or query.get("X-Amz-Content-Sha256")
    if given is None and "X-Amz-Signature" in query:
        return UNSIGNED
    if given is None:
        text = "Missing required header for this request: x-amz-content-sha256"
        raise S3Error("InvalidRequest", text)
    payload_form(given)
    return given


def _check_owner(headers: Mapping[str, str], account_id: str) -> None:
    for name in ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"):
        if headers.get(name, account_id) != account_id:
            raise S3Error("AccessDenied", "Access Denied")


def _check_no_body(content_sha256: str) -> None:
    """Check that the hash is that of no body: a request that takes none is not read further."""
    if content_sha256 not in {_EMPTY_SHA256, UNSIGNED}:
        raise S3Error(
            "XAmzContentSHA256Mismatch",
            "This operation takes no body, and x-amz-content-sha256 is not the hash of none.",
        )


# --- responses -------------------------------------------------------------------------------


def _object_response(request: ObjectRequest, file: OpenObject) -> _Response:
    data = file.data
    check_conditions(request.headers, data.etag, data.modified.replace(microsecond=0), copies=False)
    fields = _object_fields(data, request)
    part = read_range(request.headers.get("range"), data.size)
    if part is None and request.headers.get("x-amz-checksum-mode") == "ENABLED":
        fields += _checksum_fields(data)
    first, last = part or (0, data.size - 1)
    octets = last - first + 1
    fields.append((b"content-length", str(octets).encode("ascii")))
    if part is not None:
        fields.append((b"content-range", f"bytes {first}-{last}/{data.size}".encode("ascii")))
    sends = request.operation == "GetObject"
    return _Response(206 if part else 200, fields, b"", file, first, octets if sends else 0)


def _object_fields(data: ObjectData, request: ObjectRequest) -> Fields:
    fields = {"content-type": DEFAULT_TYPE, **data.headers.fields}
    for name in KEPT_HEADERS:
        if f"response-{name}" in request.query:
            fields[name] = request.query[f"response-{name}"]
    fields |= {META + name: value for name, value in data.headers.metadata.items()}
    fields |= {
        "etag": f'"{data.etag}"',
        "last-modified": _http_date(data.modified),
        "accept-ranges": "bytes",
    }
    for name, value in fields.items():
        check_header_value(name, value)  # of the query, or of a sidecar that a person wrote
    return [
        (name.encode("ascii", "replace"), value.encode("utf-8", "surrogateescape"))
        for name, value in fields.items()
    ]


def _checksum_fields(data: ObjectData) -> Fields:
    if not data.checksums:
        return []
    fields = [(f"{PREFIX}{name}".encode(), text.encode()) for name, text in data.checksums.items()]
    return [*fields, (b"x-amz-checksum-type", b"FULL_OBJECT")]


def _http_date(date: datetime) -> str:
    return format_datetime(date.replace(microsecond=0), usegmt=True)


def _error_response(error: S3Error, scope: Scope, request_id: str) -> _Response:
    if scope["method"] == "HEAD" or error.status == 304:  # noqa: PLR2004
        return _Response(error.status, [])
    resource = scope["path"][:1024]
    return _Response(error.status, _XML, encode_error(error, resource, request_id))


async def _send(response: _Response, send: Send) -> None:
    fields = response.fields
    if not any(name == b"content-length" for name, _ in fields) and response.status not in {
        204,
        304,
    }:
        fields = [*fields, (b"content-length", str(len(response.body)).encode("ascii"))]
    await send({"type": "http.response.start", "status": response.status, "headers": fields})
    file, position, left = response.file, response.first, response.octets
    while file is not None and left:
        octets = await asyncio.to_thread(file.read, position, left)
        if not octets:
            raise OSError("the object's file has become shorter")
        position, left = position + len(octets), left - len(octets)
        await send({"type": "http.response.body", "body": octets, "more_body": True})
    await send({"type": "http.response.body", "body": response.body})
