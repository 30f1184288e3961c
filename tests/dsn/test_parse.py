import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.dsn import NotADsnError, compose, parse
from tests.dsn.cases import CASES, bounce


def test_reads_the_fields_by_name():
    parsed = parse(compose(CASES["non-ascii-local-part"], "b"))
    assert parsed.header_value("from") == "postmaster@example.net"
    assert parsed.message_value("Reporting-MTA") == "dns; mx.example.net"
    assert parsed.recipients[0].final_recipient == "büb@example.net"
    assert parsed.explanation.startswith("This message could not be delivered.\r\n")


def test_reads_encoded_text():
    explanation = parse(compose(CASES["non-ascii-explanation"], "b")).explanation
    assert explanation == "Grüße!\r\nDas Postfach ist voll. 受信できません。\r\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Subject: x\r\n\r\nhello\r\n",
        b"Content-Type: multipart/report\r\n\r\n",
        compose(bounce(), "b").replace(b"message/delivery-status", b"text/plain"),
        compose(bounce(), "b").replace(b"Action: failed", b"").split(b"Final-")[0],
    ],
)
def test_refuses_what_is_no_dsn(content):
    with pytest.raises(NotADsnError):
        parse(content)


@given(st.binary())
def test_any_octets_are_read_or_refused(content):
    prefix = b'Content-Type: multipart/report; boundary="b"\r\n\r\n--b\r\n'
    for candidate in (content, prefix + content):
        try:
            parse(candidate)
        except NotADsnError:
            continue
