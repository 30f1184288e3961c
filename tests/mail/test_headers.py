import email
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.address import parse_address
from sendback.mail.envelope import Client, Envelope, Recipient, ReversePath
from sendback.mail.headers import (
    count_fields,
    field_values,
    header_fields,
    header_section,
    message_id,
    read_header,
    trace_fields,
)


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


@pytest.mark.parametrize(
    ("content", "header", "rest"),
    [
        (b"A: 1\r\nB: 2\r\n\r\nhi\r\n", b"A: 1\r\nB: 2\r\n", b"\r\nhi\r\n"),
        (b"A: 1\r\n", b"A: 1\r\n", b""),
        (b"", b"", b""),
        (b"\r\nhi\r\n", b"", b"\r\nhi\r\n"),
        # A first line that would continue whatever is put before it.
        (b" by x\r\nA: 1\r\n\r\nhi\r\n", b"X-Malformed-Line: by x\r\nA: 1\r\n", b"\r\nhi\r\n"),
        (b"\t\r\nA: 1\r\n\r\n", b"X-Malformed-Line:\t\r\nA: 1\r\n", b"\r\n"),
        # Lines that are no fields, before another field: read on.
        (b"x\r\nA: 1\r\n\r\n", b"X-Malformed-Line: x\r\nA: 1\r\n", b"\r\n"),
        (b"A: 1\r\nx\r\n y\r\nB: 2\r\n", b"A: 1\r\nX-Malformed-Line: x\r\n y\r\nB: 2\r\n", b""),
        (b": 0\r\nA: 1\r\n\r\n", b"X-Malformed-Line: : 0\r\nA: 1\r\n", b"\r\n"),
        (b"From a Mon\r\nA: 1\r\n", b"X-Malformed-Line: From a Mon\r\nA: 1\r\n", b""),
        (b"\xfc: 0\r\nA: 1\r\n", b"X-Malformed-Line: \xfc: 0\r\nA: 1\r\n", b""),
        # Lines that are no fields, and no field behind them: the body, without its empty line.
        (b"A: 1\r\nhi there\r\nyou\r\n", b"A: 1\r\n", b"\r\nhi there\r\nyou\r\n"),
        (b"A: 1\r\n 2\r\nhi\r\n\r\nyou\r\n", b"A: 1\r\n 2\r\n", b"\r\nhi\r\n\r\nyou\r\n"),
        (b"hi there\r\n", b"", b"\r\nhi there\r\n"),
        (b" hi there\r\n", b"", b"\r\n hi there\r\n"),
        # Blanks before the colon (RFC 5322 §4.5).
        (b"A : 1\r\nB\t: 2\r\n\r\n", b"A: 1\r\nB: 2\r\n", b"\r\n"),
    ],
)
def test_one_reading_of_the_header_section(content, header, rest):
    reading = read_header(content, is_whole=True)
    assert reading.header == header
    assert reading.gap + content[reading.octets :] == rest
    # The standard library, as a reader of the stored object, sees the same fields.
    whole = email.message_from_bytes(b"Received: here\r\n" + header + rest)
    assert [name.encode("latin-1") for name in whole][1:] == [n for n, _ in header_fields(header)]
    assert not whole.defects


def test_a_header_section_that_is_cut_off_is_not_read():
    field = b"A: 1\r\n"
    assert read_header(field * 100, is_whole=False) is None
    assert read_header(field * 100 + b"B", is_whole=False) is None
    assert read_header(b"no line end", is_whole=False) is None
    assert read_header(field * 100 + b"\r\nhi", is_whole=False).header == field * 100
    assert read_header(field + b"hi\r\nyou", is_whole=False).gap == b"\r\n"


LINES = st.lists(
    st.sampled_from(
        [
            b"",
            b" ",
            b"\t",
            b"A: 1",
            b"B : 2",
            b": 3",
            b"x",
            b" y",
            b"From: ann@x.example",
            b"\xff: 1",
            b"a:",
        ]
    ),
    max_size=12,
)


@given(LINES)
def test_whatever_the_lines_everybody_reads_the_same(lines):
    content = b"".join(line + b"\r\n" for line in lines)
    reading = read_header(content, is_whole=True)
    assert header_section(reading.header + b"\r\n") == reading.header
    rest = reading.gap + content[reading.octets :]
    assert not rest or rest.startswith(b"\r\n")
    whole = email.message_from_bytes(b"Received: here\r\n" + reading.header + rest)
    assert [name.encode("latin-1") for name in whole][1:] == [
        name for name, _ in header_fields(reading.header)
    ]
    # Nothing is lost, and nothing added but the field's name, the gap, and blanks before a colon.
    kept = (reading.header + rest).replace(b"X-Malformed-Line:", b"").replace(b" :", b":")
    assert kept.split() == content.replace(b" :", b":").split()


def test_fields_are_counted_in_any_case():
    assert count_fields(b"Received: a\r\nX: 1\r\nRECEIVED: b\r\n c\r\n", "Received") == 2


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


_PIECES = st.sampled_from(
    [
        b"To",
        b"to",
        b"TO",
        b":",
        b" ",
        b"\t",
        b"\r\n",
        b"\r\n ",
        b"a",
        b"\r",
        b"\n",
        b"\r\nTo:",
        b"x",
    ]
)


@given(st.lists(_PIECES, max_size=14).map(b"".join))
def test_fields_are_found_at_the_beginning_of_lines_whatever_their_case(head):
    """A pattern that says the same, and takes ten times as long."""
    value = rb"[^\r\n]*(?:\r\n[ \t][^\r\n]*)*"
    pattern = re.compile(rb"(?:\A|\r\n)To[ \t]*:(" + value + rb")", re.IGNORECASE)
    expected = [
        re.sub(rb"\r\n(?=[ \t])", b"", match[1]).strip() for match in pattern.finditer(head)
    ]
    assert field_values(head, "To") == expected
    assert count_fields(head, "To") == len(expected)
