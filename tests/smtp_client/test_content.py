"""Content in pieces is dot-stuffed and ended as whole content is, wherever it is cut."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.smtp_client.content import dot_stuffed, dot_stuffed_pieces

_OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n", b"\r\n."]), max_size=30)


def stuffed(pieces):
    async def stream():
        for piece in pieces:
            yield piece

    async def collect():
        return [piece async for piece in dot_stuffed_pieces(stream())]

    return b"".join(asyncio.run(collect()))


@pytest.mark.parametrize(
    ("content", "on_the_wire"),
    [
        (b"", b"\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"..\r\n.\r\n", b"...\r\n..\r\n.\r\n"),
        (b"a\r\n.b", b"a\r\n..b\r\n.\r\n"),
        (b"a\r\n.\r\nMAIL\r\n", b"a\r\n..\r\nMAIL\r\n.\r\n"),
        (b"a.b\r\n", b"a.b\r\n.\r\n"),
        (b"a\n.\nb\r\n", b"a\n..\nb\r\n.\r\n"),  # a bare LF: some servers end the content there
        (b"a\r.b\r", b"a\r.b\r\r\n.\r\n"),
        (b"a\n", b"a\n\r\n.\r\n"),
    ],
)
def test_content_at_every_cut(content, on_the_wire):
    assert dot_stuffed(content) == on_the_wire
    assert stuffed([bytes([octet]) for octet in content]) == on_the_wire
    for cut in range(len(content) + 1):
        assert stuffed([content[:cut], content[cut:]]) == on_the_wire
        assert stuffed([content[:cut], b"", content[cut:]]) == on_the_wire


@pytest.mark.fuzz
@given(st.lists(_OCTETS.map(b"".join), max_size=8))
def test_any_pieces_are_stuffed_as_their_whole(pieces):
    assert stuffed(pieces) == dot_stuffed(b"".join(pieces))
