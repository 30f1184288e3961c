"""SMTP smuggling (CVE-2023-51764, -51765, -51766; "SMTP Smuggling", SEC Consult, 2023).

Each is an end of data that some server takes for one and others do not. None may make two mails
of one, wherever the octets are cut into packets.
"""

import pytest

from tests.smtp.sessions import Session

VARIANTS = {
    "LF . LF": b"\n.\n",
    "LF . CR LF": b"\n.\r\n",
    "CR LF . LF": b"\r\n.\n",
    "CR . CR": b"\r.\r",
    "CR LF . CR": b"\r\n.\r",
    "CR . CR LF": b"\r.\r\n",
    "LF . CR": b"\n.\r",
    "CR LF NUL . CR LF": b"\r\n\x00.\r\n",
}
FORGED = (
    b"MAIL FROM:<forged@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
    b"From: forged\r\n\r\nforged\r\n.\r\n"
)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_no_other_end_of_data_ends_it(variant):
    wire = b"From: ann\r\n\r\nhello" + variant + FORGED
    for cut in range(len(wire) + 1):
        session = Session().transaction()
        session.send(wire[:cut], wire[cut:])
        assert len(session.messages) <= 1, cut
        for envelope, _ in session.messages:
            assert str(envelope.reverse_path) == "ann@sender.example"


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_no_other_end_of_data_ends_it_octet_by_octet(variant):
    wire = b"From: ann\r\n\r\nhello" + variant + FORGED
    session = Session().transaction()
    session.send(*(bytes([octet]) for octet in wire))
    assert len(session.messages) <= 1


@pytest.mark.parametrize("variant", [text for name, text in VARIANTS.items() if "NUL" not in name])
def test_a_bare_line_end_refuses_the_whole_message(variant):
    session = Session().transaction()
    assert session.codes(b"hello" + variant + b"there\r\n.\r\n") == ["550"]
    assert not session.messages


def test_the_true_end_ends_it():
    session = Session().transaction()
    session.send(b"From: ann\r\n\r\nhello\r\n.\r\n" + FORGED)
    assert len(session.messages) == 2  # two mails that were sent as two
