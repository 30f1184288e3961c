"""The body of an upload: plain, or in the chunks of `aws-chunked`. Pure.

Theory of operation. `Payload.feed` takes the octets of the body, cut anywhere, and returns the
object's octets; `finish` is called at the end. Both raise `S3Error`. The header
`x-amz-content-sha256` says which form the body has:

| value | body | what is checked |
| --- | --- | --- |
| 64 hexadecimal digits | plain | the SHA-256 of the whole |
| `UNSIGNED-PAYLOAD`, none in a presigned URL | plain | |
| `STREAMING-UNSIGNED-PAYLOAD-TRAILER` | chunks, a trailer | the checksum in the trailer |
| `STREAMING-AWS4-HMAC-SHA256-PAYLOAD` | signed chunks | each chunk's signature |
| `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER` | signed chunks, a signed trailer | all of these |

A chunk is `SIZE[;chunk-signature=…]` CR LF, its octets, CR LF; one of size 0 is the last. S3 API,
"Signature calculations: transferring payload in multiple chunks", and the same "with trailing
headers". A signed chunk is returned when its signature is verified, so it is in memory until then.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from sendback.s3.errors import S3Error, not_implemented

UNSIGNED = "UNSIGNED-PAYLOAD"
MAX_SIGNED_CHUNK = 2**20  # octets; the SDKs send 64 or 128 KiB
_MAX_LINE = 1024
_MAX_TRAILER_LINES = 16
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;chunk-signature=([0-9a-f]{64}))?")
_EMPTY_HASH = hashlib.sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(slots=True)
class ChunkSigner:
    """Verifies the signatures of chunks; each depends on the one before, the first on the seed."""

    key: bytes
    stamp: str
    scope: str
    signature: str

    def check_chunk(self, octets: bytes, signature: str) -> None:
        """Raise `S3Error` unless it is the next chunk's signature."""
        digest = hashlib.sha256(octets).hexdigest()
        self._check(f"{_ALGORITHM}-PAYLOAD", f"{_EMPTY_HASH}\n{digest}", signature)

    def check_trailer(self, lines: bytes, signature: str) -> None:
        """Raise `S3Error` unless it is the signature of the trailer, of lines that end by LF."""
        self._check(f"{_ALGORITHM}-TRAILER", hashlib.sha256(lines).hexdigest(), signature)

    def _check(self, kind: str, content: str, signature: str) -> None:
        text = f"{kind}\n{self.stamp}\n{self.scope}\n{self.signature}\n{content}"
        expected = hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise S3Error(
                "SignatureDoesNotMatch",
                "The signature of a chunk of the body does not match. Check your AWS Secret Access "
                "Key and signing method.",
            )
        self.signature = expected


@dataclass(frozen=True, slots=True)
class PayloadForm:
    """The form of a body."""

    sha256: str | None = None
    is_chunked: bool = False
    is_signed: bool = False
    has_trailer: bool = False


_STREAMING = {
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": PayloadForm(is_chunked=True, has_trailer=True),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": PayloadForm(is_chunked=True, is_signed=True),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": PayloadForm(
        is_chunked=True, is_signed=True, has_trailer=True
    ),
}


def payload_form(content_sha256: str) -> PayloadForm:
    """Return the form that `x-amz-content-sha256` declares. Raise `S3Error`."""
    if content_sha256 == UNSIGNED:
        return PayloadForm()
    if _SHA256.fullmatch(content_sha256):
        return PayloadForm(sha256=content_sha256)
    if content_sha256 in _STREAMING:
        return _STREAMING[content_sha256]
    if content_sha256.startswith("STREAMING-"):
        raise not_implemented(f"x-amz-content-sha256: {content_sha256}")
    raise S3Error(
        "InvalidArgument",
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a "
        "valid sha256 value.",
    )


class Payload:
    """A plain body, whose hash is compared with the declared one."""

    def __init__(self, form: PayloadForm) -> None:
        self._declared = form.sha256
        self._hash = hashlib.sha256() if form.sha256 else None
        self.trailer: Mapping[str, str] = {}

    def feed(self, octets: bytes) -> bytes:
        """Return the object's octets in the next octets of the body."""
        if self._hash is not None:
            self._hash.update(octets)
        return octets

    def finish(self) -> None:
        """Check the end of the body."""
        if self._hash is not None and self._hash.hexdigest() != self._declared:
            raise S3Error(
                "XAmzContentSHA256Mismatch",
                "The provided 'x-amz-content-sha256' header does not match what was computed.",
            )


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()  # the CR LF behind a chunk
    TRAILER = auto()
    END = auto()


@dataclass(slots=True)
class _Chunk:
    left: int = 0
    signature: str = ""
    held: bytearray = field(default_factory=bytearray)


class ChunkedPayload(Payload):
    """A body in chunks."""

    def __init__(self, form: PayloadForm, signer: ChunkSigner | None) -> None:
        super().__init__(form)
        self._form = form
        self._signer = signer if form.is_signed else None
        self._state = _State.SIZE
        self._buffer = bytearray()
        self._chunk = _Chunk()
        self._lines: list[bytes] = []

    def feed(self, octets: bytes) -> bytes:
        self._buffer += octets
        found = bytearray()
        while self._step(found):
            pass
        return bytes(found)

    def finish(self) -> None:
        if self._state is _State.TRAILER and not self._form.has_trailer and not self._lines:
            return  # the empty line at the end is missing: some clients omit it
        if self._state is not _State.END:
            raise _incomplete()

    def _step(self, found: bytearray) -> bool:
        """Do one piece of work; return False when more octets are needed."""
        if self._state is _State.DATA:
            return self._take_data(found)
        if self._state is _State.END:
            if self._buffer:
                raise _malformed("there are octets behind the last chunk")
            return False
        line = self._line()
        if line is None:
            return False
        if self._state is _State.SIZE:
            self._begin_chunk(line)
        elif self._state is _State.TRAILER:
            self._take_trailer_line(line)
        elif line:
            raise _malformed("a chunk is longer than its size")
        else:
            self._state = _State.SIZE
        return True

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", 0, _MAX_LINE)
        if end < 0:
            if len(self._buffer) >= _MAX_LINE:
                raise _malformed("a line is too long")
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        return line

    def _begin_chunk(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None or (match[2] is None) is not (self._signer is None):
            raise _malformed("a chunk does not begin with its size and, if signed, its signature")
        signature = match[2].decode("ascii") if match[2] else ""
        self._chunk = _Chunk(int(match[1], 16), signature)
        if self._signer is not None and self._chunk.left > MAX_SIGNED_CHUNK:
            raise _malformed(f"a signed chunk has more than {MAX_SIGNED_CHUNK} bytes")
        if self._chunk.left:
            self._state = _State.DATA
            return
        if self._signer is not None:
            self._signer.check_chunk(b"", signature)
        self._state = _State.TRAILER

    def _take_data(self, found: bytearray) -> bool:
        if not self._buffer:
            return False
        octets = bytes(self._buffer[: self._chunk.left])
        del self._buffer[: len(octets)]
        self._chunk.left -= len(octets)
        if self._signer is None:
            found += octets
        else:
            self._chunk.held += octets
        if not self._chunk.left:
            self._end_data(found)
        return True

    def _end_data(self, found: bytearray) -> None:
        if self._signer is not None:
            held = bytes(self._chunk.held)
            self._signer.check_chunk(held, self._chunk.signature)
            found += held
        self._state = _State.DATA_END

    def _take_trailer_line(self, line: bytes) -> None:
        if line:
            self._lines.append(line)
            if len(self._lines) > _MAX_TRAILER_LINES:
                raise _malformed("the trailer has too many lines")
            return
        self._state = _State.END
        self._read_trailer()

    def _read_trailer(self) -> None:
        pairs = [line.decode("latin-1").partition(":") for line in self._lines]
        fields = {name.strip().lower(): value.strip() for name, _, value in pairs}
        signature = fields.pop("x-amz-trailer-signature", "")
        if fields and not self._form.has_trailer:
            raise _malformed("a trailer was not declared")
        if self._signer is not None and self._form.has_trailer:
            lines = "".join(f"{name}:{value}\n" for name, value in sorted(fields.items()))
            self._signer.check_trailer(lines.encode("latin-1"), signature)
        self.trailer = fields


def _incomplete() -> S3Error:
    return S3Error("IncompleteBody", "The request body terminated unexpectedly")


def _malformed(reason: str) -> S3Error:
    return S3Error("InvalidRequest", f"The body is not of the form aws-chunked: {reason}.")
