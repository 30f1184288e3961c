"""The body of PutObject: received piece by piece, checked, written to a file in threads."""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import Receive

from sendback.s3.checksums import ALGORITHMS, PREFIX, Running, text_of
from sendback.s3.chunks import Payload
from sendback.s3.directory import READ_OCTETS, Upload
from sendback.s3.errors import S3Error, not_implemented
from sendback.s3.requests import MAX_OBJECT, too_large


class ClientGoneError(Exception):
    """The client closed the connection before the end of its body."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the headers of an upload declare.

    `checksums` are by algorithm; that of `in_trailer` comes behind the body.
    """

    size: int | None
    md5: str | None
    checksums: Mapping[str, str]
    in_trailer: str | None


def read_expected(headers: Mapping[str, str], size: int | None) -> Expected:
    """Return what the headers declare. Raise `S3Error`."""
    declared = {
        name.removeprefix(PREFIX): value.strip()
        for name, value in headers.items()
        if name.removeprefix(PREFIX) in ALGORITHMS
    }
    trailer = headers.get("x-amz-trailer", "").strip().lower()
    if trailer and trailer.removeprefix(PREFIX) not in ALGORITHMS:
        raise not_implemented(f"x-amz-trailer: {trailer}")
    return Expected(
        size=size,
        md5=headers.get("content-md5"),
        checksums=declared,
        in_trailer=trailer.removeprefix(PREFIX) or None,
    )


class Receiver:
    """Receives one body."""

    def __init__(self, upload: Upload, payload: Payload, expected: Expected) -> None:
        self._upload = upload
        self._payload = payload
        self._expected = expected
        names = [*expected.checksums, *filter(None, [expected.in_trailer])]
        self._running: dict[str, Running] = {name: ALGORITHMS[name]() for name in names}

    async def receive(self, receive: Receive) -> Mapping[str, str]:
        """Write the whole body; return its checksums. Raise `S3Error`, `ClientGoneError`."""
        buffer, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            buffer += message.get("body", b"")
            more = message.get("more_body", False)
            if len(buffer) >= READ_OCTETS or not more:
                octets, buffer = bytes(buffer), bytearray()
                await asyncio.to_thread(self._take, octets)
        return await asyncio.to_thread(self._finish)

    def _take(self, octets: bytes) -> None:
        content = self._payload.feed(octets)
        size = self._upload.size + len(content)
        if size > (MAX_OBJECT if self._expected.size is None else self._expected.size):
            raise too_large(size) if size > MAX_OBJECT else _incomplete()
        for checksum in self._running.values():
            checksum.update(content)
        self._upload.write(content)

    def _finish(self) -> Mapping[str, str]:
        self._payload.finish()
        if self._expected.size not in {None, self._upload.size}:
            raise _incomplete()
        self._check_md5()
        found = {name: text_of(checksum) for name, checksum in self._running.items()}
        declared = dict(self._expected.checksums)
        if self._expected.in_trailer:
            name = self._expected.in_trailer
            declared[name] = self._payload.trailer.get(PREFIX + name, "")
        for name, text in declared.items():
            if found[name] != text:
                raise S3Error(
                    "BadDigest",
                    f"The {name.upper()} you specified did not match the calculated checksum.",
                )
        return found

    def _check_md5(self) -> None:
        if self._expected.md5 is None:
            return
        try:
            declared = base64.b64decode(self._expected.md5, validate=True)
        except ValueError:
            declared = b""
        if len(declared) != self._upload.md5.digest_size:
            raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
        if declared != self._upload.md5.digest():
            raise S3Error(
                "BadDigest", "The Content-MD5 you specified did not match what we received."
            )


def _incomplete() -> S3Error:
    return S3Error(
        "IncompleteBody",
        "You did not provide the number of bytes specified by the Content-Length HTTP header",
    )
