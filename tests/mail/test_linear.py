"""Reading a mail takes steps in proportion to its size, whatever it is made of."""

from contextlib import suppress

import pytest

from sendback.mail.address import AddressError, parse_address, parse_mailbox
from sendback.mail.address_lists import read_address_list
from sendback.mail.authentication_results import authserv_id
from sendback.mail.authors import read_authors
from sendback.mail.encoded_words import decode_words
from sendback.mail.headers import count_fields, header_fields, message_id, read_header
from sendback.mail.loops import reason_for_silence
from sendback.receipt.added_headers import published_header
from sendback.receipt.events import MAX_COMMON_OCTETS, function_event, notification
from tests.partners.steps import assert_linear
from tests.receipt.cases import ACTIONS, ARRIVAL, FAILED, TRACE, mail

WHOLE = 256 * 1024
TRACED = 16 * 1024

# Repetition of each special character and of each small structure; one long field; many of them.
PIECES = [
    "(", ")", "<", ">", "@", ",", ";", ":", '"', "\\", "[", "]", ".", "=", "?", "=?", " ", "\t",
    "a", "a ", "a@", "a@b ", "a@b,", "a:", "a;", "@[", "(a", "((a)", '"a', '\\"', "<a@b", "<@a",
    "<<>>", "@ ", " @", "a. ", "=?a?q?", "=?utf-8?q?a?= ", "=?utf-8?b?YQ==?=", "=?utf-8?q?=", "%",
    "é", "\xa0", "\ud7ff", "¡¿",
]  # fmt: skip
LINES = [
    b"\r\n", b" \r\n", b"a\r\n", b":\r\n", b"a:\r\n", b"a :\r\n", b"a:b\r\n c\r\nd\r\n",
    b"From: a@b\r\n", b"Received: x\r\n", b"a: " + b"b" * 900 + b"\r\n",
    b"Authentication-Results: ((\r\n",
    b"To: a@b, c@d\r\n", b"Message-ID: <a@b>\r\n", b"Auto-Submitted: (\r\n", b"a" * 990 + b"\r\n",
]  # fmt: skip


def of_size(piece, size):
    return piece * (size // len(piece))


def read(parse):
    def run(text):
        with suppress(AddressError):
            parse(text)

    return run


TEXTS = {
    "address lists": read_address_list,
    "encoded words": decode_words,
    "authserv-id": authserv_id,
    "address": read(lambda text: parse_address(text, any_dots=True)),
    "mailbox": read(parse_mailbox),
    "mailbox's name": read(lambda text: parse_mailbox(f"{text} <a@b.example>")),
}


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("parser", TEXTS)
def test_one_text(parser, piece):
    work = TEXTS[parser]
    assert_linear(lambda size: work(of_size(piece, size)), TRACED)
    work(of_size(piece, WHOLE))


def events(header):
    for view in ACTIONS.values():
        notification(mail(header), view, header)
        function_event(mail(header), view)


def read_whole(content):
    reading = read_header(content, is_whole=True)
    for name in ("From", "Received", "a"):
        count_fields(reading.header, name)
    list(header_fields(reading.header))
    message_id(reading.header)
    read_authors(reading.header)
    reason_for_silence(reading.header)
    return reading.header


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("tail", [b"", b"From: a@b\r\n\r\nhi\r\n"])
def test_one_header_section(line, tail):
    assert_linear(lambda size: read_whole(of_size(line, size) + tail), TRACED)
    header = read_whole(of_size(line, WHOLE) + tail)
    events(header)
    published_header(TRACE + header, ARRIVAL, FAILED, scanned=True)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("name", [b"From", b"To", b"Subject", b"Authentication-Results"])
def test_one_field(name, piece):
    def header(size):
        return name + b": " + of_size(piece, size).encode("utf-8", "replace") + b"\r\n"

    def work(size):
        read_authors(header(size))
        function_event(mail(header(size)), ACTIONS["lambda"])
        published_header(TRACE + header(size), ARRIVAL, FAILED, scanned=True)

    assert_linear(work, TRACED)
    work(WHOLE)


def test_a_field_of_addresses_is_read_up_to_its_bound():
    header = b"To: " + b"a@b.example, " * 40_000 + b"\r\n"
    assert function_event(mail(header), ACTIONS["lambda"]).count("a@b.example") <= (
        MAX_COMMON_OCTETS / len(b"a@b.example, ") + 10 * 1024
    )
