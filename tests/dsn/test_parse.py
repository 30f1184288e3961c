from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.dsn import NotADsnError, check, compose, parse
from tests.dsn.cases import CASES, bounce

CASE_FILES = Path(__file__).parents[1] / "cases"

HEADER = (
    b"From: mailer-daemon@mta.example\r\n"
    b"To: ann@sender.example\r\n"
    b"Subject: Undelivered\r\n"
    b"MIME-Version: 1.0\r\n"
)
TYPE = b'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n'
TEXT = b"Content-Type: text/plain\r\n\r\nSorry.\r\n"
REPORT_TYPE = b"Content-Type: message/delivery-status\r\n"
MESSAGE = b"Reporting-MTA: dns; mta.example\r\n"
BOB = b"Final-Recipient: rfc822; bob@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n"
CYD = b"Final-Recipient: rfc822; cyd@example.com\r\nAction: delayed\r\nStatus: 4.2.2\r\n"
REPORT = REPORT_TYPE + b"\r\n" + MESSAGE + b"\r\n" + BOB
RETURNED = b"Content-Type: text/rfc822-headers\r\n\r\nSubject: Lunch\r\n"

BOB_READ = ("bob@example.com", "failed", "5.1.1")
CYD_READ = ("cyd@example.com", "delayed", "4.2.2")


def multipart(*parts: bytes, kind: bytes = TYPE, boundary: bytes = b"b") -> bytes:
    """A multipart with its header."""
    lines = (part if part.endswith(b"\r\n") else part + b"\r\n" for part in parts)
    cut = b"".join(b"--" + boundary + b"\r\n" + part for part in lines)
    return kind + b"\r\n" + cut + b"--" + boundary + b"--\r\n"


def dsn(text: bytes = TEXT, report: bytes = REPORT, returned: bytes = RETURNED) -> bytes:
    return HEADER + multipart(text, report, returned)


def of_report(content: bytes) -> bytes:
    """A DSN whose report has this content."""
    return dsn(report=REPORT_TYPE + b"\r\n" + content)


def read(content: bytes) -> list[tuple[str, str, str]]:
    return [(r.final_recipient, r.action, r.status) for r in parse(content).recipients]


def test_reads_the_fields_by_name():
    parsed = parse(compose(CASES["non-ascii-local-part"], "b"))
    assert parsed.header_value("from") == "postmaster@example.net"
    assert parsed.message_value("Reporting-MTA") == "dns; mx.example.net"
    assert parsed.recipients[0].final_recipient == "büb@example.net"
    assert parsed.explanation.startswith("This message could not be delivered.\r\n")


def test_reads_encoded_text():
    explanation = parse(compose(CASES["non-ascii-explanation"], "b")).explanation
    assert explanation == "Grüße!\r\nDas Postfach ist voll. 受信できません。\r\n"


@pytest.mark.parametrize("file", sorted(CASE_FILES.glob("dsn-*/*.eml")), ids=lambda file: file.name)
def test_the_forms_of_other_writers(file):
    parsed = parse(file.read_bytes())
    assert read(file.read_bytes()) == [BOB_READ]
    assert parsed.explanation.strip() == "Sorry."
    assert parsed.returned_type == "text/rfc822-headers"
    assert parsed.returned == b"Subject: hi\r\n"


@pytest.mark.parametrize("name", ["no-message-group", "one-group", "mixed"])
def test_reading_leniently_hides_no_finding(name):
    (file,) = CASE_FILES.glob(f"dsn-*/{name}.eml")
    assert check(file.read_bytes().replace(b"\n", b"\r\n"))


# --- line ends and the message's header -----------------------------------------------------------


@pytest.mark.parametrize("line_end", [b"\n", b"\r", b"\r\r\n"])
def test_any_line_end(line_end):
    content = dsn().replace(b"\r\n", line_end)
    assert read(content) == [BOB_READ]
    assert parse(content).explanation == "Sorry."


def test_mixed_line_ends():
    ends = [b"\r\n", b"\n", b"\r"]
    lines = dsn().split(b"\r\n")
    content = b"".join(line + ends[number % 3] for number, line in enumerate(lines))
    assert read(content) == [BOB_READ]


@pytest.mark.parametrize(
    "content",
    [
        b"\r\n\r\n" + dsn(),
        b"From MAILER-DAEMON Mon Dec 19 03:18:51 2016\r\n" + dsn(),
        b">From MAILER-DAEMON Mon Dec 19 03:18:51 2016\r\n" + dsn(),
        dsn().replace(b"Subject: Undelivered", b"garbage without a colon\r\nSubject: Undelivered"),
        dsn().replace(b"Content-Type: multipart", b"Content-Type : multipart"),
        dsn().replace(b"Content-Type: multipart", b"CONTENT-TYPE:multipart"),
        dsn().replace(b'boundary="b"\r\n\r\n', b'boundary="b"\r\n'),  # no empty line
        dsn().replace(b"MIME-Version: 1.0\r\n", b""),
    ],
)
def test_the_header_of_the_message(content):
    assert read(content) == [BOB_READ]
    assert parse(content).header_value("Subject") == "Undelivered"


# --- Content-Type ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        (b"multipart/report (a DSN); boundary=b", b"b"),
        (b"multipart(a)/(b)report(c (d) \\) e); boundary=b", b"b"),
        (b"multipart / report; boundary=b", b"b"),
        (b"(;boundary=x) multipart/report; (boundary=y) boundary (z) = (z) b (z)", b"b"),
        (b'MULTIPART/Report; report-type="delivery-status"; Boundary="a;b (c) d"', b"a;b (c) d"),
        (b'multipart/report; boundary="a\\"b\\\\c"', b'a"b\\c'),
        (b'multipart/report; boundary="unclosed; report-type=delivery-status', b"unclosed"),
        (b"multipart/report; boundary=Boundary_(ID_x)", b"Boundary_(ID_x)"),
        (b"multipart/report; boundary=b(a comment)", b"b"),
        (b"multipart/report; boundary='b'", b"'b'"),
        (b"multipart/report; boundary='b'", b"b"),
        (b"multipart/report boundary=b", b"b"),
        (b"multipart/report;; boundary=b;;", b"b"),
        (b'multipart/report; boundary="ends with blanks  "', b"ends with blanks"),
        (b"multipart/report; boundary=.*[x]+?", b".*[x]+?"),
        (b"multipart/report; boundary=\xe0\xff\xa0x", b"\xe0\xff\xa0x"),
        ("multipart/report; boundary=grüße".encode(), "grüße".encode()),
        (b"multipart/report; boundary=----=_Part", b"----=_Part"),
        (b"multipart/report; boundary*=us-ascii'en'a%20b", b"a b"),
        (b"multipart/report; boundary*0=abc; boundary*1=def", b"abcdef"),
        (b'multipart/report; boundary*1="de;f"; boundary*0=abc', b"abcde;f"),
        (b"multipart/report; boundary*0*=utf-8''a%3Bb; boundary*1=c; boundary*2*=%41", b"a;bcA"),
        (b"multipart/report; boundary=b; boundary=x", b"b"),
        (b"multipart/report;\r\n\tboundary=\r\n b", b"b"),
        (b"multipart/report", b"anything"),  # none is given: the first delimiter tells
        (b"multipart/report; boundary=wrong", b"right"),
        (b'multipart/report; boundary=""', b"b"),
        (b"multipart/mixed; boundary=b", b"b"),
        (b"multipart/related; boundary=b", b"b"),
        (b"multipart/x-unknown; boundary=b", b"b"),
    ],
)
def test_the_type_of_the_container(value, boundary):
    kind = b"Content-Type: " + value + b"\r\n"
    content = HEADER + multipart(TEXT, REPORT, RETURNED, kind=kind, boundary=boundary)
    parsed = parse(content)
    assert read(content) == [BOB_READ]
    assert parsed.explanation == "Sorry."
    assert parsed.returned == b"Subject: Lunch"


@pytest.mark.parametrize(
    "kind",
    [
        b"message/delivery-status; charset=us-ascii",
        b"Message/Delivery-Status (x)",
        b'message/delivery-status; name="details; x.txt"',
        b"message/global-delivery-status",
        b"message/xdelivery-status",
    ],
)
def test_the_type_of_the_report(kind):
    content = dsn(report=b"Content-Type: " + kind + b"\r\n\r\n" + MESSAGE + b"\r\n" + BOB)
    assert read(content) == [BOB_READ]


# --- where the parts are --------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    content = multipart(TEXT, REPORT, RETURNED, boundary=b"b")
    for level in range(depth):
        boundary = b"outer%d" % level
        kind = b"Content-Type: multipart/mixed; boundary=" + boundary + b"\r\n"
        content = multipart(content, kind=kind, boundary=boundary)
    return HEADER + content


@pytest.mark.parametrize("depth", [1, 2, 10])
def test_a_nested_report(depth):
    assert read(nested(depth)) == [BOB_READ]
    assert parse(nested(depth)).explanation == "Sorry."
    assert parse(nested(depth)).returned == b"Subject: Lunch"


def test_nesting_has_a_limit():
    with pytest.raises(NotADsnError):
        parse(nested(200))


@pytest.mark.parametrize(
    "content",
    [
        dsn().replace(b"--b--\r\n", b""),
        dsn().replace(b"--b--", b"--wrong--"),
        dsn().replace(b"\r\n--b--\r\n", b""),
        dsn().replace(b"--b\r\n", b"--b \t\r\n"),
        dsn().replace(b"\r\n--b\r\n", b"\r\nA preamble with --b in it, and\r\n--bb\r\n--b\r\n", 1),
        dsn().replace(b"\r\n--b\r\n", b"\r\nA preamble that ends\r\n--b--\r\n\r\n--b\r\n", 1),
        dsn() + b"An epilogue\r\n--b\r\n" + REPORT.replace(b"bob", b"eve") + b"--b--\r\n",
        # a boundary that begins like the outer one
        HEADER
        + multipart(
            multipart(TEXT, kind=b"Content-Type: multipart/mixed; boundary=bb\r\n", boundary=b"bb"),
            REPORT,
            RETURNED,
        ),
        # a multipart inside that is not closed
        HEADER
        + multipart(
            b"Content-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n" + TEXT,
            REPORT,
            RETURNED,
        ),
    ],
)
def test_delimiters(content):
    assert read(content) == [BOB_READ]
    assert parse(content).explanation.rstrip() == "Sorry."


def test_a_part_without_an_empty_line_below_its_header():
    content = (
        HEADER
        + TYPE
        + (
            b"\r\n--b\r\nContent-Type: text/plain\r\nSorry.\r\n--b\r\n"
            + REPORT_TYPE
            + MESSAGE
            + b"\r\n"
            + BOB
            + b"--b--\r\n"
        )
    )
    assert read(content) == [BOB_READ]
    assert parse(content).explanation == "Sorry."
    assert parse(content).message_value("Reporting-MTA") == "dns; mta.example"
    assert read(content.replace(MESSAGE + b"\r\n", b"")) == [BOB_READ]


def test_a_message_that_is_a_report_itself():
    content = HEADER + REPORT
    assert read(content) == [BOB_READ]
    assert parse(content).explanation == ""


EVE = REPORT.replace(b"bob", b"eve")
INNER = HEADER + multipart(TEXT.replace(b"Sorry", b"Inner"), EVE, RETURNED, boundary=b"i")
INNER_TYPE = TYPE.replace(b'"b"', b'"i"')


def test_a_report_in_the_returned_mail_is_not_this_one():
    inner = INNER.replace(TYPE, INNER_TYPE)
    content = HEADER + multipart(TEXT, REPORT, b"Content-Type: message/rfc822\r\n\r\n" + inner)
    assert read(content) == [BOB_READ]
    assert parse(content).explanation == "Sorry."
    assert parse(content).returned.startswith(HEADER)
    first = HEADER + multipart(b"Content-Type: message/rfc822\r\n\r\n" + inner, TEXT, REPORT)
    assert read(first) == [BOB_READ]
    assert parse(first).explanation == "Sorry."
    assert parse(first).returned_type == "message/rfc822"


@pytest.mark.parametrize("kind", [b"message/rfc822", b"message/global", b"text/plain"])
def test_a_mail_with_a_report_as_attachment_is_none(kind):
    attachment = b"Content-Type: " + kind + b"\r\n\r\n" + INNER.replace(TYPE, INNER_TYPE)
    mixed = b"Content-Type: multipart/mixed; boundary=b\r\n"
    with pytest.raises(NotADsnError):
        parse(HEADER + multipart(TEXT, attachment, kind=mixed))


def test_reports_beside_each_other_are_read_together():
    second = REPORT_TYPE + b"\r\n" + CYD
    content = HEADER + multipart(TEXT, REPORT, second, RETURNED)
    assert read(content) == [BOB_READ, CYD_READ]
    assert parse(content).returned == b"Subject: Lunch"


# --- the text for people --------------------------------------------------------------------------


def alternative(*parts: bytes) -> bytes:
    kind = b"Content-Type: multipart/alternative; boundary=c\r\n"
    return multipart(*parts, kind=kind, boundary=b"c")


HTML = b"Content-Type: text/html\r\n\r\n<p>Sorry.</p>\r\n"
IMAGE = b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n"


PLAIN = b"Content-Type: text/plain"
BY_BASE64 = PLAIN + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"


def in_charset(charset: bytes, octets: bytes) -> bytes:
    return PLAIN + b"; charset" + charset + b"\r\n\r\n" + octets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"\r\nSorry.", "Sorry."),
        (b"Content-Type: text\r\n\r\nSorry.", "Sorry."),
        (alternative(TEXT, HTML), "Sorry."),
        (alternative(HTML, TEXT), "Sorry."),
        (HTML, "<p>Sorry.</p>"),
        (
            multipart(
                alternative(HTML, TEXT), IMAGE, kind=TYPE.replace(b'"b"', b"x"), boundary=b"x"
            ),
            "Sorry.",
        ),
        (
            b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: BASE64 (x)"
            b"\r\n\r\nR3LD\r\nvMOfZQ==\r\n",
            "Grüße",
        ),
        (BY_BASE64 + b"U29y!cnku!", "Sorry."),
        (BY_BASE64 + b"U29ycnkuQ", "Sorry."),
        (BY_BASE64 + b"====", ""),
        (
            b"Content-Type: text/plain; charset=ISO-8859-1\r\n"
            b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe=\r\n!",
            "Grüße!",
        ),
        (in_charset(b"=iso-2022-jp", b"\x1b$B<u?.\x1b(B"), "受信"),
        (in_charset(b"=Shift_JIS", b"\x8e\xf3\x90M"), "受信"),
        (in_charset(b'="windows-1252"', b"\x93x\x94"), "“x”"),
        (in_charset(b"*=us-ascii'en'utf-8", "Grüße".encode()), "Grüße"),
        (in_charset(b"=us-ascii", "Grüße".encode()), "Grüße"),
        (in_charset(b"=unicode-1-1-utf-7", b"Gr+APw-"), "Grü"),
        (in_charset(b"=utf-7", b"+2AA-"), "\ufffd"),
        (in_charset(b"=x-unknown", "Grüße".encode() + b" \xff"), "Grüße \ufffd"),
    ],
)
def test_the_text_for_people(text, expected):
    assert parse(dsn(text=text)).explanation.rstrip() == expected


@pytest.mark.parametrize(
    "charset",
    ["unicode_escape", "raw_unicode_escape", "punycode", "idna", "zlib", "zip", "bz2", "hex",
     "base64", "uu", "quopri", "rot13", "mbcs", "undefined", "x" * 10_000, "utf-8*en", "", "\\"],
)  # fmt: skip
def test_what_is_no_charset_is_read_as_utf_8(charset):
    text = b"Content-Type: text/plain; charset=" + charset.encode() + b"\r\n\r\nGr\xc3\xbc\\u0041-x"
    assert parse(dsn(text=text)).explanation == "Grü\\u0041-x"


def test_the_text_may_be_around_the_report_or_behind_it():
    inner = multipart(REPORT, RETURNED, kind=TYPE.replace(b'"b"', b"i"), boundary=b"i")
    mixed = b"Content-Type: multipart/mixed; boundary=b\r\n"
    footer = b"Content-Type: text/plain\r\n\r\n-- \r\nA list's footer\r\n"
    assert parse(HEADER + multipart(TEXT, inner, footer, kind=mixed)).explanation == "Sorry."
    assert parse(HEADER + multipart(REPORT, TEXT)).explanation == "Sorry."
    assert parse(HEADER + multipart(REPORT)).explanation == ""
    with_footer = multipart(TEXT, REPORT, RETURNED, kind=TYPE.replace(b'"b"', b"i"), boundary=b"i")
    assert parse(HEADER + multipart(with_footer, footer, kind=mixed)).explanation == "Sorry."


# --- the report -----------------------------------------------------------------------------------


def encoded(content: bytes, encoding: bytes) -> bytes:
    return REPORT_TYPE + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + content


BASE64 = (
    b"UmVwb3J0aW5nLU1UQTogZG5zOyBtdGEuZXhhbXBsZQoKRmluYWwtUmVjaXBpZW50OiByZmM4MjI7\r\n"
    b"IGJvYkBleGFtcGxlLmNvbQpBY3Rpb246IGZhaWxlZApTdGF0dXM6IDUuMS4xCg==\r\n"
)


@pytest.mark.parametrize(
    "report",
    [
        encoded(BASE64, b"base64"),
        encoded(BASE64.replace(b"=", b""), b"Base64 (a comment)"),
        encoded((MESSAGE + b"\r\n" + BOB).replace(b"bob@", b"bob=40=\r\n"), b"quoted-printable"),
        encoded(MESSAGE + b"\r\n" + BOB, b"8bit"),
        encoded(MESSAGE + b"\r\n" + BOB, b"base64"),  # it says so and is not
        encoded(MESSAGE + b"\r\n" + BOB, b"x-unknown"),
    ],
)
def test_an_encoded_report(report):
    assert read(dsn(report=report)) == [BOB_READ]
    assert parse(dsn(report=report)).message_value("Reporting-MTA") == "dns; mta.example"
    assert "RFC 3464 §2.1" in {finding.section for finding in check(dsn(report=report))}


def test_a_group_that_is_encoded_by_itself():
    """Some gateways take the groups for messages and encode one: MimeKit reads it too."""
    encoded_bob = (
        b"RmluYWwtUmVjaXBpZW50OiByZmM4MjI7IGJvYkBleGFtcGxlLmNvbQpBY3Rpb246IGZhaWxlZApT\r\n"
    )
    encoded_bob += b"dGF0dXM6IDUuMS4xCg==\r\n"
    group = MESSAGE + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded_bob
    assert read(of_report(group)) == [BOB_READ]


@pytest.mark.parametrize(
    "content",
    [
        BOB,
        MESSAGE + BOB,
        BOB + MESSAGE,
        b"\r\n" + MESSAGE + b"\r\n\r\n\r\n" + BOB + b"\r\n\r\n",
        b"\r\n\r\n" + BOB,
        MESSAGE + b" \t\r\n" + BOB,
        MESSAGE + b"\r\n" + BOB + b"--unknown\r\n" + CYD,
        MESSAGE + b"\r\n" + BOB.replace(b"\r\nAction", b"\r\n\r\nAction"),
        MESSAGE + b"X-Queue-ID: 1\r\n" + BOB,
        MESSAGE.replace(b":", b" :") + b"\r\n" + BOB.replace(b":", b" \t:"),
        MESSAGE + b"\r\n" + BOB.replace(b"Action: ", b"Action:\r\n "),
        b"garbage\r\n" + MESSAGE + b"\r\ngarbage\r\n" + BOB,
        MESSAGE + b"\r\n" + BOB + b"\r\nX-Other: a block of nobody\r\n",
        MESSAGE + b"\r\nArrival-Date: Thu, 01 Oct 2015 13:48:54 +0000\r\n\r\n" + BOB,
    ],
)
def test_one_recipient_however_the_groups_are_separated(content):
    assert read(of_report(content)) == [BOB_READ]


@pytest.mark.parametrize(
    "content",
    [
        MESSAGE + b"\r\n" + BOB + b"\r\n" + CYD,
        MESSAGE + b"\r\n" + BOB + CYD,
        MESSAGE + BOB + CYD,
        BOB + CYD,
        BOB + b"\r\n" + CYD,
        MESSAGE + b"Original-Recipient: rfc822; b\r\n" + BOB
        + b"Original-Recipient: rfc822; c\r\n" + CYD,
        MESSAGE + b"\r\nOriginal-Recipient: rfc822; b\r\n" + BOB + CYD,
        MESSAGE
        + b"".join(
            b"Action: %s\r\nFinal-Recipient: rfc822; %s@example.com\r\nStatus: %s\r\n" % entry
            for entry in [(b"failed", b"bob", b"5.1.1"), (b"delayed", b"cyd", b"4.2.2")]
        ),
    ],
)  # fmt: skip
def test_two_recipients_however_the_groups_are_separated(content):
    assert read(of_report(content)) == [BOB_READ, CYD_READ]


def test_the_fields_about_the_message_are_found_in_any_block():
    content = MESSAGE + b"X-Queue-ID: 1\r\nFinal-Recipient: rfc822; bob@example.com\r\n"
    content += b"Action: failed\r\nX-Own: 2\r\nArrival-Date: x\r\nStatus: 5.1.1\r\n"
    parsed = parse(of_report(content))
    assert [name for name, _ in parsed.message_fields] == [
        "Reporting-MTA",
        "X-Queue-ID",
        "Arrival-Date",
    ]
    (recipient,) = parsed.recipients
    assert [name for name, _ in recipient.fields] == [
        "Final-Recipient",
        "Action",
        "X-Own",
        "Status",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("rfc822; bob@example.com", "bob@example.com"),
        ("bob@example.com", "bob@example.com"),
        ("<bob@example.com>", "bob@example.com"),
        ("RFC822;<bob@example.com>", "bob@example.com"),
        ("rfc822 ;  bob@example.com  ", "bob@example.com"),
        ("rfc822;bob@example.com (Bob (the) builder)", "bob@example.com"),
        ("rfc822;Bob <bob@example.com>", "bob@example.com"),
        ("rfc822; bob@example.com>", "bob@example.com"),
        ('rfc822; "a;b (c) \\" <d>"@example.com', '"a;b (c) \\" <d>"@example.com'),
        ('"a;b"@example.com', '"a;b"@example.com'),
        ("rfc/822;bob@example.com", "bob@example.com"),
        ("utf-8; b\\x{FC}b@example.com", "büb@example.com"),
        ("utf-8; büb@example.com", "büb@example.com"),
        ("utf8; b\\x{1F600}@example.com", "b\U0001f600@example.com"),
        ("utf-8; b\\x{D800}\\x{110000}\\x{}@example.com", "b\ufffd\ufffd\\x{}@example.com"),
        ("rfc822; bob+2Btag@example.com", "bob+2Btag@example.com"),  # no xtext in a DSN
        ("x400; /C=US/A=X/P=Y/", "/C=US/A=X/P=Y/"),
        ("", ""),
    ],
)
def test_the_address_of_a_recipient(value, expected):
    content = of_report(b"Action: failed\r\nFinal-Recipient: " + value.encode() + b"\r\n")
    assert parse(content).recipients[0].final_recipient == expected


def test_the_original_recipient_stands_in_for_a_missing_final_one():
    content = of_report(b"Original-Recipient: <bob@example.com>\r\nAction: failed\r\n")
    assert read(content) == [("bob@example.com", "failed", "")]


@pytest.mark.parametrize(
    ("action", "status", "expected"),
    [
        ("Failed", "5.1.1 (bad destination (really))", ("failed", "5.1.1")),
        ("failed (for good)", " 5.1.1 ", ("failed", "5.1.1")),
        ("FAILED", "(odd) 5.1.1", ("failed", "5.1.1")),
    ],
)
def test_action_and_status_are_read_without_comments(action, status, expected):
    fields = f"Final-Recipient: x\r\nAction: {action}\r\nStatus: {status}\r\n"
    (recipient,) = parse(of_report(fields.encode())).recipients
    assert (recipient.action, recipient.status) == expected


# --- what is no DSN -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"Subject: x\r\n\r\nhello\r\n",
        b"Content-Type: multipart/report\r\n\r\n",
        compose(bounce(), "b").replace(b"message/delivery-status", b"text/plain"),
        compose(bounce(), "b").replace(b"Action: failed", b"").split(b"Final-")[0],
        of_report(b""),
        of_report(MESSAGE),
        of_report(b"X-Only: extensions\r\n\r\nX-Only: extensions\r\n"),
        HEADER + multipart(TEXT, b"Content-Type: message/disposition-notification\r\n\r\n" + BOB),
        HEADER + b"Content-Type: text/plain\r\n\r\n--b\r\n" + REPORT + b"--b--\r\n",
    ],
)
def test_refuses_what_is_no_dsn(content):
    with pytest.raises(NotADsnError):
        parse(content)


def test_a_message_past_the_limits_is_refused_and_not_read_in_part():
    with pytest.raises(NotADsnError, match="1000 parts"):
        parse(HEADER + multipart(TEXT, REPORT, *[TEXT] * 1000))
    with pytest.raises(NotADsnError, match="100000 header and report fields"):
        parse(of_report(MESSAGE + b"\r\n" + BOB + b"X: y\r\n" * 100_000))


FRAGMENTS = (
    b"--b", b"--b--", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b"(", b")", b'"', b"\\",
    b";", b"=", b"'", b"*", b"%", b":", b"<", b">", b"\0", b"\xff", b"\xc3\xbc", TYPE, TEXT, REPORT,
    REPORT_TYPE, MESSAGE, BOB, RETURNED, HTML, BASE64, b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n", b"Content-Type: message/rfc822\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n", b"charset=", b"boundary*0*=", b"utf-7",
    b"iso-2022-jp", b"hz-gb-2312", b"utf-16", b"\x1b$B", b"~{", b"+2AA-", b"=\r\n", b"=F", b"\\x{",
)  # fmt: skip


@pytest.mark.fuzz
@given(st.binary() | st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join))
def test_any_octets_are_read_or_refused_and_judged(content):
    for candidate in (content, HEADER + TYPE + b"\r\n--b\r\n" + content, of_report(content)):
        check(candidate)
        try:
            parsed = parse(candidate)
        except NotADsnError:
            continue
        texts = [
            parsed.explanation,
            *(recipient.final_recipient for recipient in parsed.recipients),
        ]
        for text in texts:
            text.encode("utf-8")


@pytest.mark.parametrize("blank", [b"\xa0", b"\xc2\xa0", b" \xc2\xa0 "], ids=repr)
def test_a_non_breaking_space_behind_the_colon(blank):
    fields = BOB.replace(b": ", b":" + blank)
    assert read(of_report(MESSAGE + b"\r\n" + fields))[0][0] == BOB_READ[0]


def test_a_non_breaking_space_in_utf_8_is_no_part_of_any_field():
    fields = BOB.replace(b": ", b":\xc2\xa0")
    assert read(of_report(MESSAGE + b"\r\n" + fields)) == [BOB_READ]
