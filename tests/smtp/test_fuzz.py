"""Any octets, cut anywhere: the machine never raises, and accepts only whole messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.smtp.session import SessionLimits
from tests.smtp.sessions import Session

_WORDS = [
    b"EHLO x", b"HELO x", b"MAIL FROM:<a@b.example>", b"MAIL FROM:<>", b"RCPT TO:<bob@example.com>",
    b"RCPT TO:<x@other.example>", b"DATA", b"RSET", b"NOOP", b"QUIT", b"STARTTLS", b"VRFY x",
    b"HELP", b"SIZE=1", b"BODY=8BITMIME", b"SMTPUTF8", b"RET=FULL", b"ENVID=a+2B", b"NOTIFY=NEVER",
    b"ORCPT=rfc822;x", b"ORCPT=utf-8;\\x{FC}", b".", b"..", b"<", b">", b"@", b" ", b"=", b'"',
    b"\\", b"From: x", b"\xc3\xa4", b"\xff", b"\x00",
]  # fmt: skip
_ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"", b"\r\n.\r\n"]
_pieces = st.one_of(
    st.tuples(st.sampled_from(_WORDS), st.sampled_from(_ENDS)).map(b"".join),
    st.binary(max_size=30),
    st.sampled_from([b"x" * 600, b"y" * 1500]),
)


@pytest.mark.fuzz
@given(st.lists(_pieces, max_size=40), st.booleans(), st.booleans())
def test_no_octets_make_the_machine_raise(pieces, transaction, octet_by_octet):
    session = Session(limits=SessionLimits(content=1000, recipients=3, errors=20))
    if transaction:
        session.transaction()
    wire = b"".join(pieces)
    sent = [bytes([octet]) for octet in wire] if octet_by_octet else pieces
    output = session.send(*sent)
    if session.tls_requests and not session.ended:
        session.machine.tls_started("TLSv1.3")
        output += session.send(*pieces)
    assert all(line[:3].isdigit() for line in output.split(b"\r\n") if line)
    for envelope, content in session.messages:
        assert envelope.recipients
        assert len(content) <= 1000
        assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")


@pytest.mark.fuzz
@given(st.binary(max_size=200), st.data())
def test_content_survives_stuffing_and_any_cuts(wire, data):
    """Any content, stuffed as a client does, comes out as it went in, however it is cut."""
    body = wire.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"
    stuffed = (b"\r\n" + body).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stuffed)), max_size=6)))
    pieces = [stuffed[a:b] for a, b in zip([0, *cuts], [*cuts, len(stuffed)], strict=True)]
    session = Session().transaction()
    assert session.codes(*pieces) == ["250"]
    assert session.messages[0][1] == body
