from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.address import parse_address
from sendback.mail.envelope import Client, Envelope, Recipient, ReversePath
from sendback.mail.headers import field_values, header_section, message_id, trace_fields


def test_the_header_section_ends_at_the_empty_line():
    assert header_section(b"A: 1\r\nB: 2\r\n\r\nC: 3\r\n") == b"A: 1\r\nB: 2\r\n"


def test_a_mail_that_is_all_header_has_a_header():
    assert header_section(b"A: 1\r\nB: 2\r\n") == b"A: 1\r\nB: 2\r\n"


def test_a_mail_without_header_has_none():
    assert header_section(b"\r\nhello\r\n") == b""
    assert header_section(b"hello there\r\nA: 1\r\n\r\n") == b""
    assert header_section(b"") == b""


def test_a_broken_header_ends_before_the_first_line_that_is_no_field():
    assert header_section(b"A: 1\r\n folded\r\nnot a field\r\nB: 2\r\n\r\n") == (
        b"A: 1\r\n folded\r\n"
    )


def test_values_are_unfolded_and_found_in_any_case():
    head = b"Subject: a\r\n b\r\nX: 1\r\nSUBJECT :  c\r\n"
    assert field_values(head, "subject") == [b"a b", b"c"]


def test_a_message_id_is_taken_only_when_it_is_one():
    assert message_id(b"Message-ID: <a.b@c.example>\r\n") == "<a.b@c.example>"
    for bad in (
        b"",
        b"Message-ID: a@b\r\n",
        b"Message-ID: <a b@c>\r\n",
        b"Message-ID: <a@b>\r\nMessage-ID: <c@d>\r\n",
        b"Message-ID: <a@b> <c@d>\r\n",
        b"Message-ID: <a@b>\r\n X: y\r\n",
        b"Message-ID: <\xe4@b>\r\n",
        b"Message-ID: <" + b"a" * 500 + b"@b>\r\n",
    ):
        assert message_id(bad) is None, bad


def _envelope(helo: str, *recipients: str) -> Envelope:
    return Envelope(
        client=Client("192.0.2.1", helo),
        reverse_path=ReversePath(parse_address("ann@sender.example")),
        recipients=tuple(Recipient(parse_address(text)) for text in recipients),
    )


def test_trace_fields_are_in_the_form_of_recorded_mail():
    now = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
    trace = trace_fields(_envelope("mx.sender.example", "bob@example.com"), "id1", "mx", now)
    assert trace.decode() == (
        "Return-Path: <ann@sender.example>\r\n"
        "Received: from mx.sender.example (unknown [192.0.2.1])\r\n"
        " by mx with SMTP id id1\r\n"
        " for bob@example.com;\r\n"
        " Sun, 01 Mar 2026 12:00:00 +0000 (UTC)\r\n"
    )


def test_trace_fields_name_no_recipient_when_there_are_several():
    now = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
    trace = trace_fields(_envelope("x", "a@example.com", "b@example.com"), "id1", "mx", now)
    assert b"a@example.com" not in trace
    assert b"with SMTP id id1;\r\n" in trace


def test_a_helo_name_that_is_none_stays_out_of_the_header():
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert b"(from" not in trace_fields(_envelope("a(from", "a@example.com"), "i", "mx", now)


@given(st.binary())
def test_any_octets_have_a_header_section_that_is_their_beginning(content):
    head = header_section(content)
    assert content.startswith(head)
    field_values(head, "Subject")
    message_id(head)
