"""Reading and judging take steps in proportion to the size of the message, whatever its shape."""

from collections.abc import Callable

import pytest

from sendback.dsn import DsnError, NotADsnError, check, parse
from sendback.dsn.fields import check_value
from sendback.dsn.mime import is_field
from tests.dsn.test_parse import HEADER, HTML, MESSAGE, REPORT_TYPE, TYPE, of_report
from tests.partners.steps import assert_few_lines

SIZE = 256 * 1024
PER_OCTET = 24


def repeated(octets: bytes) -> Callable[[int], bytes]:
    return lambda size: octets * (size // len(octets))


def body(octets: bytes) -> Callable[[int], bytes]:
    return lambda size: HEADER + TYPE + b"\r\n" + repeated(octets)(size)


def report(before: bytes, octets: bytes, after: bytes = b"") -> Callable[[int], bytes]:
    return lambda size: of_report(before + repeated(octets)(size) + after)


def content_type(before: bytes, octets: bytes) -> Callable[[int], bytes]:
    return lambda size: b"Content-Type: " + before + repeated(octets)(size) + b"\r\n\r\n"


def text(encoding: bytes, charset: bytes, octets: bytes) -> Callable[[int], bytes]:
    start = b"Content-Type: text/plain; charset=" + charset
    start += b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n"
    end = b"\r\n--b\r\n" + REPORT_TYPE + b"\r\n" + MESSAGE + b"Final-Recipient: x\r\n--b--\r\n"
    return lambda size: HEADER + TYPE + b"\r\n--b\r\n" + start + repeated(octets)(size) + end


def nested(size: int) -> bytes:
    level = b"Content-Type: multipart/mixed; boundary=n%d\r\n\r\n--n%d\r\n"
    return b"".join(level % (number, number) for number in range(size // 60))


SHAPES: dict[str, Callable[[int], bytes]] = {
    "delimiters": body(b"--b\r\n"),
    "closing delimiters": body(b"--b--\r\n"),
    "delimiters of a longer boundary": body(b"--bb\r\n"),
    "one line of dashes": body(b"-"),
    "lines of dashes": body(b"--\r\n"),
    "nesting": nested,
    "nesting with one boundary": body(TYPE + b"\r\n--b\r\n"),
    "a huge boundary": content_type(b"multipart/report; boundary=", b"x"),
    "empty lines": report(b"", b"\r\n"),
    "blank lines": report(b"", b" \r\n"),
    "blanks": report(b"Action:", b" ", b"x\r\n"),
    "CR": repeated(b"\r"),
    "LF": repeated(b"\n"),
    "CR CR LF": repeated(b"\r\r\n"),
    "parameters": content_type(b"multipart/report", b"; a=b"),
    "pieces of a parameter": content_type(b"multipart/report", b"; a*0*=b"),
    "backslashes": content_type(b'multipart/report; boundary="', b"\\"),
    "quotes": content_type(b"multipart/report; boundary=", b'"'),
    "open comments": content_type(b"multipart/report", b"("),
    "comments": content_type(b"multipart/report", b"()"),
    "semicolons": content_type(b"multipart/report", b";"),
    "header fields": repeated(b"a:b\r\n"),
    "folds": lambda size: b"a: b\r\n" + repeated(b" c\r\n")(size),
    "report fields": report(b"", b"a:b\r\n"),
    "recipients": report(MESSAGE + b"\r\n", b"Final-Recipient: x\r\n\r\n"),
    "recipients without empty lines": report(MESSAGE, b"Final-Recipient: x\r\n"),
    "groups without an address": report(MESSAGE, b"\r\nAction: failed\r\n"),
    "field names": lambda size: of_report(b"".join(b"q-%d:\r\n" % n for n in range(size // 8))),
    "comments in an action": report(b"Final-Recipient: x\r\nAction: ", b"("),
    "quotes in an address": report(b"Final-Recipient: ", b'"\\'),
    "brackets in an address": report(b"Final-Recipient: ", b"<"),
    "escapes in an address": report(b"Final-Recipient: utf-8; ", b"\\x{"),
    "@ in an envelope ID": report(b"Original-Envelope-Id: <", b"@"),
    "dots in a host name": report(b"Reporting-MTA: dns; ", b"a."),
    "a date with comments": report(b"Arrival-Date: Thu, 01 Oct 2015 13:48:54 +0000", b" (x)"),
    "encoded blocks": report(b"", b"Content-Transfer-Encoding: base64\r\n\r\n"),
    "padding": text(b"base64", b"utf-8", b"="),
    "no base64": text(b"base64", b"utf-8", b"!"),
    "quoted-printable": text(b"quoted-printable", b"utf-8", b"="),
    "soft breaks": text(b"quoted-printable", b"utf-8", b"=\r\n"),
    "UTF-7": text(b"8bit", b"utf-7", b"+"),
    "ISO-2022-JP": text(b"8bit", b"iso-2022-jp", b"\x1b$B"),
    "no charset": text(b"8bit", b"punycode", b"a-"),
    "parts": body(b"--b\r\n" + HTML),
}


def read_or_refuse(content: bytes) -> None:
    try:
        for recipient in parse(content).recipients:
            _ = recipient.final_recipient, recipient.action, recipient.status
    except NotADsnError:
        pass


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_is_linear(shape):
    assert_few_lines(read_or_refuse, SHAPES[shape], SIZE, PER_OCTET)


@pytest.mark.parametrize("shape", SHAPES)
def test_judging_is_linear(shape):
    assert_few_lines(check, SHAPES[shape], SIZE, PER_OCTET)


@pytest.mark.parametrize("shape", ["field names", "recipients", "groups without an address"])
def test_findings_are_bounded(shape):
    assert len(check(SHAPES[shape](SIZE))) == 1001


def test_the_counter_sees_what_is_quadratic():
    """Or all of the above would prove nothing."""
    with pytest.raises(AssertionError):
        assert_few_lines(lambda n: [is_field(b"") for _ in range(n * n)], int, 160, 1_000_000)


@pytest.mark.parametrize(
    "value",
    ["x" + " " * 2_000_000, " " * 2_000_000 + "x", "x " * 1_000_000, "x" + " \t" * 1_000_000 + "x"],
    ids=["blanks behind", "blanks before", "words", "blanks between"],
)
def test_a_field_is_checked_in_linear_time(value):
    """What is quadratic in two million octets does not end within the test's time limit."""
    try:
        check_value("Diagnostic-Code", value)
    except DsnError as error:
        assert "fold" in error.rule
