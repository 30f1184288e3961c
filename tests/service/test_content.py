"""Content as actions read it: a header section and a body that may be a file."""

import asyncio
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.service.rules.content import CHUNK_OCTETS, Content, ContentGoneError, LocalBody

HEADER = b"A: b\r\n"


@pytest.fixture(params=["memory", "file"])
def content(request, tmp_path):
    def make(body, header=HEADER):
        if request.param == "memory":
            return Content(header, body, len(body))
        (tmp_path / "body").write_bytes(body)
        return Content(header, LocalBody(tmp_path / "body", len(body)), len(body))

    return make


def streamed(content):
    async def story():
        return [chunk async for chunk in content.stream()]

    return asyncio.run(story())


@pytest.mark.parametrize("size", [0, 1, CHUNK_OCTETS - 6, CHUNK_OCTETS, 3 * CHUNK_OCTETS + 1])
def test_all_ways_of_reading_agree(content, size):
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    made = content(body)
    assert made.size == len(HEADER) + size
    assert made.read() == HEADER + body
    assert b"".join(made.body_chunks()) == body
    assert b"".join(streamed(made)) == HEADER + body
    with made.open() as file:
        assert file.read() == HEADER + body
    other = made.with_header(b"")
    assert other.read() == body
    assert other.size == size


def test_no_more_than_a_chunk_is_read_at_once(content):
    made = content(b"x" * (5 * CHUNK_OCTETS))
    if isinstance(made.body, bytes):
        return  # it is in memory anyway
    assert max(map(len, streamed(made))) <= CHUNK_OCTETS
    assert max(map(len, made.body_chunks())) <= CHUNK_OCTETS


@given(
    st.binary(max_size=20),
    st.binary(max_size=40),
    st.lists(st.tuples(st.sampled_from("srt"), st.integers(0, 70), st.integers(0, 2)), max_size=12),
)
def test_the_file_is_as_one_of_the_same_octets(header, body, moves):
    whole = io.BytesIO(header + body)
    with Content(header, body, len(body)).open() as file:
        for move, number, whence in moves:
            match move:
                case "s":
                    offset = number if whence == 0 else -(number % (whole.tell() + 1))
                    if whence == 2:
                        offset = -(number % (len(header + body) + 1))
                    assert file.seek(offset, whence) == whole.seek(offset, whence)
                case "r":
                    assert file.read(number) == whole.read(number)
                case "t":
                    assert file.tell() == whole.tell()


def test_content_that_is_gone(tmp_path):
    made = Content(HEADER, LocalBody(tmp_path / "body", 5), 5)
    for read in (made.open, made.read, lambda: list(made.body_chunks()), lambda: streamed(made)):
        with pytest.raises(ContentGoneError, match="the content body is not there any more"):
            read()
    (tmp_path / "body").write_bytes(b"four")
    with pytest.raises(ContentGoneError, match="the content body is not complete"):
        made.read()


def test_a_reader_that_stops_leaves_no_file_open(tmp_path, recwarn):
    (tmp_path / "body").write_bytes(b"x" * 3 * CHUNK_OCTETS)
    made = Content(HEADER, LocalBody(tmp_path / "body", 3 * CHUNK_OCTETS), 3 * CHUNK_OCTETS)

    async def story():
        stream = made.stream()
        await anext(stream)
        await stream.aclose()

    asyncio.run(story())
    assert not list(recwarn)
