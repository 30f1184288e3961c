"""The SMTP client's pure parts: replies however they are cut, conversations that stay in step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.smtp_client.content import dot_stuffed
from sendback.smtp_client.conversation import (
    Capabilities,
    OutgoingMail,
    Stage,
    hello,
    transact,
)
from sendback.smtp_client.replies import GarbageReplyError, ReplyReader, ServerReply
from tests.partners.steps import assert_few_lines

_TEXT = st.text(st.characters(codec="ascii", exclude_categories=("C",)), max_size=20)
_REPLY = st.tuples(st.integers(200, 599), st.lists(_TEXT, min_size=1, max_size=4))


def octets(code, lines):
    last = len(lines) - 1
    return "".join(
        f"{code}{' ' if number == last else '-'}{line}\r\n" for number, line in enumerate(lines)
    ).encode()


def pieces(data, cuts):
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@pytest.mark.fuzz
@given(st.lists(_REPLY, max_size=5), st.lists(st.integers(0, 1000), max_size=8))
def test_replies_are_the_same_however_they_are_cut(replies, cuts):
    data = b"".join(octets(code, lines) for code, lines in replies)
    reader = ReplyReader()
    found = [reply for piece in pieces(data, cuts) for reply in reader.feed(piece)]
    assert [(reply.code, list(reply.lines)) for reply in found] == replies
    assert reader.is_empty


@pytest.mark.fuzz
@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_octets_are_replies_or_garbage(chunks):
    reader = ReplyReader()
    try:
        for chunk in chunks:
            for reply in reader.feed(chunk):
                assert 200 <= reply.code < 600
                assert str(reply).isprintable()
    except GarbageReplyError as error:
        assert str(error).isprintable()


def test_no_reply_grows_without_end():
    with pytest.raises(GarbageReplyError, match="without an end"):
        ReplyReader().feed(b"2" * 10_000)
    with pytest.raises(GarbageReplyError, match="without an end"):
        ReplyReader().feed((b"250-" + b"x" * 60 + b"\r\n") * 2000)


EXTENSIONS = st.sets(
    st.sampled_from(["PIPELINING", "CHUNKING", "8BITMIME", "SIZE", "DSN", "SMTPUTF8"])
)
ENVELOPE = OutgoingMail("ann@sender.example", b"Subject: x\r\n\r\n.hidden\r\nbody\r\n")


@pytest.mark.fuzz
@given(EXTENSIONS, st.lists(st.integers(200, 599), min_size=6, max_size=6))
def test_a_transaction_stays_in_step(extensions, codes):
    """Each command is answered once, whatever the answers are; a delivery had three good ones."""
    capabilities = Capabilities(dict.fromkeys(extensions, ""))
    conversation = transact(capabilities, ENVELOPE)
    given_codes, commands = iter(codes), 0
    exchange = next(conversation)
    try:
        while True:
            replies = [ServerReply(next(given_codes), ("x",)) for _ in range(exchange.replies)]
            commands += exchange.replies
            exchange = conversation.send(replies)
    except StopIteration as stop:
        answer = stop.value
    used = codes[:commands]
    if answer.reply.is_positive:
        assert answer.stage is Stage.CONTENT
        in_one_go = {"PIPELINING", "CHUNKING"} <= extensions
        assert len(used) == (3 if in_one_go else 4)
        assert all(code < 400 for code in used)
    else:
        assert any(code >= 400 or code == answer.reply.code for code in used) or (
            answer.reply.code == 451
        )


@given(st.lists(st.sampled_from([b".", b"..", b".a", b"a", b"", b"a."]), min_size=1, max_size=8))
def test_dots_are_stuffed_and_come_back(lines):
    content = b"".join(line + b"\r\n" for line in lines)
    stuffed = dot_stuffed(content)
    assert stuffed.endswith(b".\r\n")
    body = stuffed[:-3]
    unstuffed = b"".join(line.removeprefix(b".") for line in body.splitlines(keepends=True))
    assert unstuffed == content
    assert b".\r\n" not in body.splitlines(keepends=True)


def test_what_ehlo_says_is_read_without_case():
    conversation = hello("here.example")
    assert next(conversation).octets == b"EHLO here.example\r\n"
    lines = ("there.example", "Size 1000", "auth PLAIN login", "8bitmime", "")
    with pytest.raises(StopIteration) as stop:
        conversation.send([ServerReply(250, lines)])
    found = stop.value.value
    assert found.max_size == 1000
    assert found.auth_mechanisms == {"PLAIN", "LOGIN"}
    assert "8BITMIME" in found


# --- hostile replies ------------------------------------------------------------------------------


def read_in_pieces(data, size=1):
    reader = ReplyReader()
    try:
        for start in range(0, len(data), size):
            reader.feed(data[start : start + size])
    except GarbageReplyError:
        pass


SHAPES = {
    "one reply": lambda n: (b"250-x\r\n" * (n // 7)) + b"250 x\r\n",
    "short lines": lambda n: b"250-\n" * (n // 5),
    "long lines": lambda n: (b"250-" + b"x" * 4000 + b"\r\n") * (n // 4006),
    "a line without an end": lambda n: b"250 " + b"x" * n,
    "many replies": lambda n: b"250 ok\r\n" * (n // 8),
    "codes alone": lambda n: b"250\n" * (n // 4),
    "CR": lambda n: b"250-" + b"\r" * n,
    "controls": lambda n: (b"250-" + b"\x1b" * 4000 + b"\n") * (n // 4005),
    "no UTF-8": lambda n: (b"250-" + b"\xff" * 4000 + b"\n") * (n // 4005),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 1000])
def test_replies_are_read_in_linear_steps(shape, size):
    assert_few_lines(lambda data: read_in_pieces(data, size), SHAPES[shape], 64 * 1024, 24)


class Searched(bytearray):
    """Counts the octets that are searched for a line end."""

    searched = 0

    def find(self, wanted, start=0):
        Searched.searched += len(self) - start
        return super().find(wanted, start)


def test_each_octet_is_searched_once(monkeypatch):
    monkeypatch.setattr("sendback.smtp_client.replies.bytearray", Searched, raising=False)
    read_in_pieces(b"250-" + b"x" * 4000 + b"\r\n250 y\r\n")
    assert Searched.searched <= 4100


def test_a_server_with_ten_thousand_keywords():
    reader = ReplyReader()
    (reply,) = reader.feed(b"250-x\r\n" * 10_000 + b"250 SIZE 5\r\n")
    conversation = hello("mx.example.com")
    next(conversation)
    with pytest.raises(StopIteration) as stopped:
        conversation.send([reply])
    assert stopped.value.value.max_size == 5


def test_what_a_server_says_is_visible():
    (reply,) = ReplyReader().feed(b"550-\x1b[2J\xe2\x80\xae\r\n550 \x9b\xff\r\n")
    assert str(reply).isprintable()
    assert "\\x1b[2J\\u202e" in str(reply)
    with pytest.raises(GarbageReplyError) as raised:
        ReplyReader().feed(b"\x1b]0;x\x07\r\n")
    assert str(raised.value).isprintable()
