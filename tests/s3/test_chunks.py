"""Bodies in chunks, with the examples of the S3 API's documentation."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.aws.sigv4 import Credentials, signing_key
from sendback.s3.chunks import ChunkedPayload, ChunkSigner, Payload, payload_form
from sendback.s3.errors import S3Error

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
# S3 API, "Signature calculations for the Authorization header: transferring payload in multiple
# chunks", and the same with trailing headers: the seed, and the signatures of chunks of 65,536,
# 1,024 and no letters a.
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
CHUNKS = (
    "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
    "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
    "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
)
SEED_OF_TRAILER = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
CHUNKS_OF_TRAILER = (
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
)
TRAILER = (
    b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    b"x-amz-trailer-signature:"
    b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
)


def signer(seed):
    stamp = "20130524T000000Z"
    credentials = Credentials(
        "AKIAIOSFODNN7EXAMPLE", stamp[:8], "us-east-1", "s3", (), seed, stamp,
        datetime(2013, 5, 24, tzinfo=UTC), None, None,
    )  # fmt: skip
    return ChunkSigner(signing_key(SECRET, credentials), stamp, credentials.scope, seed)


def body_of(signatures, end=b"\r\n"):
    sizes = (65536, 1024, 0)
    chunks = b"".join(
        b"%x;chunk-signature=%b\r\n" % (size, signature.encode())
        + (b"a" * size + b"\r\n" if size else b"")
        for size, signature in zip(sizes, signatures, strict=True)
    )
    return chunks + end


def read(payload, body, size):
    found = b"".join(payload.feed(body[at : at + size]) for at in range(0, len(body), size))
    payload.finish()
    return found


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_the_documented_chunks(size):
    payload = ChunkedPayload(payload_form(SIGNED), signer(SEED))
    assert read(payload, body_of(CHUNKS), size) == b"a" * 66560


@pytest.mark.parametrize("size", [1, 1000, 10**6])
def test_the_documented_trailer(size):
    payload = ChunkedPayload(payload_form(SIGNED_TRAILER), signer(SEED_OF_TRAILER))
    assert read(payload, body_of(CHUNKS_OF_TRAILER, TRAILER), size) == b"a" * 66560
    assert payload.trailer == {"x-amz-checksum-crc32c": "sOO8/Q=="}


def refused(form, body, seed=SEED):
    with pytest.raises(S3Error) as raised:
        read(ChunkedPayload(payload_form(form), signer(seed)), body, 1000)
    return raised.value.code


def test_a_changed_chunk_or_trailer_is_refused_before_it_is_passed_on():
    body = body_of(CHUNKS)
    assert refused(SIGNED, body.replace(b"aaa", b"aab", 1)) == "SignatureDoesNotMatch"
    assert refused(SIGNED, body_of(CHUNKS[:2] + CHUNKS[:1])) == "SignatureDoesNotMatch"
    changed = body_of(CHUNKS_OF_TRAILER, TRAILER.replace(b"sOO8", b"tOO8"))
    assert refused(SIGNED_TRAILER, changed, SEED_OF_TRAILER) == "SignatureDoesNotMatch"
    unsigned = body_of(CHUNKS_OF_TRAILER, b"x-amz-checksum-crc32c:sOO8/Q==\r\n\r\n")
    assert refused(SIGNED_TRAILER, unsigned, SEED_OF_TRAILER) == "SignatureDoesNotMatch"
    payload = ChunkedPayload(payload_form(SIGNED), signer(SEED))
    with pytest.raises(S3Error):
        payload.feed(b"1;chunk-signature=" + b"0" * 64 + b"\r\nb\r\n")


@pytest.mark.parametrize(
    ("form", "body", "code"),
    [
        (UNSIGNED_TRAILER, b"3\r\nabc\r\n", "IncompleteBody"),
        (UNSIGNED_TRAILER, b"3\r\nab", "IncompleteBody"),
        (UNSIGNED_TRAILER, b"", "IncompleteBody"),
        (UNSIGNED_TRAILER, b"3\r\nabcd\r\n0\r\n\r\n", "InvalidRequest"),
        (UNSIGNED_TRAILER, b"x\r\n", "InvalidRequest"),
        (UNSIGNED_TRAILER, b"-1\r\n", "InvalidRequest"),
        (UNSIGNED_TRAILER, b"123456789\r\n", "InvalidRequest"),
        (UNSIGNED_TRAILER, b"0" * 2000, "InvalidRequest"),
        (UNSIGNED_TRAILER, b"0\r\n" + b"a:b\r\n" * 17, "InvalidRequest"),
        (UNSIGNED_TRAILER, b"0\r\n\r\nmore", "InvalidRequest"),
        (SIGNED, b"3\r\nabc\r\n0\r\n\r\n", "InvalidRequest"),
        (SIGNED, b"ffffff;chunk-signature=" + b"0" * 64 + b"\r\n", "InvalidRequest"),
    ],
)
def test_malformed_bodies(form, body, code):
    assert refused(form, body) == code


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 60))
def test_any_chunks_cut_anywhere(chunks, size):
    body = b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    payload = ChunkedPayload(payload_form(UNSIGNED_TRAILER), None)
    assert read(payload, body + b"0\r\nX-Amz-Checksum-CRC32: x \r\n\r\n", size) == b"".join(chunks)
    assert payload.trailer == {"x-amz-checksum-crc32": "x"}


@given(st.binary(max_size=200), st.integers(1, 60), st.sampled_from([SIGNED, UNSIGNED_TRAILER]))
def test_any_octets_are_read_or_refused(body, size, form):
    payload = ChunkedPayload(payload_form(form), signer(SEED))
    try:
        read(payload, body, size)
    except S3Error as error:
        assert error.code in {"InvalidRequest", "IncompleteBody", "SignatureDoesNotMatch"}


def test_a_plain_body_is_compared_with_its_hash():
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert read(Payload(payload_form(digest)), b"hello", 2) == b"hello"
    with pytest.raises(S3Error, match="XAmzContentSHA256Mismatch"):
        read(Payload(payload_form(digest)), b"hallo", 2)
    assert read(Payload(payload_form("UNSIGNED-PAYLOAD")), b"hallo", 2) == b"hallo"
    for value in ("", "x", "A" * 64, "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"):
        with pytest.raises(S3Error):
            payload_form(value)
