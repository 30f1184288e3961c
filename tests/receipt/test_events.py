"""Notifications, function events and the published header, held against golden files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.headers import field_values, header_section, split_trace
from sendback.receipt.added_headers import published_header
from sendback.receipt.events import function_event, notification, object_key
from sendback.receipt.model import S3Action
from sendback.receipt.verdicts import Verdict, verdicts_from_json
from tests.golden import check_golden
from tests.receipt.cases import (
    ACTIONS,
    ARRIVAL,
    FAILED,
    HEADERS,
    PASSED,
    TRACE,
    UNKNOWN,
    mail,
    receipt,
)

CONTENT = HEADERS["plain-scanned"] + b"\r\nAre you free? \xc3\xa4\r\n"


def pretty(text):
    return (json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n").encode()


@pytest.mark.parametrize("name", HEADERS)
def test_the_published_header(name):
    check_golden(f"receipt/{name}.eml", HEADERS[name])
    assert header_section(HEADERS[name]) == HEADERS[name]  # nothing in it ends the header


@pytest.mark.parametrize("name", ACTIONS)
def test_the_notification_of_an_action(name):
    content = CONTENT if name.startswith("sns") else None
    text = notification(mail(HEADERS["plain-scanned"]), ACTIONS[name], content)
    check_golden(f"receipt/notification-{name}.json", pretty(text))


def test_the_event_of_a_function():
    text = function_event(mail(HEADERS["plain-scanned"]), ACTIONS["lambda"])
    check_golden("receipt/function-event.json", pretty(text))


def test_the_event_of_hostile_mail():
    view = receipt(ACTIONS["lambda"].action, FAILED, scanned=False)
    text = function_event(mail(HEADERS["forged-results-are-left-out"]), view)
    check_golden("receipt/function-event-hostile.json", pretty(text))


def test_the_policy_is_named_when_it_was_failed():
    def policy(verdicts):
        view = receipt(ACTIONS["stop"].action, verdicts)
        return json.loads(notification(mail(b""), view))["receipt"].get("dmarcPolicy")

    assert policy(PASSED) is None
    assert policy(UNKNOWN) is None
    assert policy(FAILED) == "quarantine"


def common(header):
    view = json.loads(function_event(mail(header), ACTIONS["lambda"]))
    return view["Records"][0]["ses"]["mail"]["commonHeaders"]


@pytest.mark.parametrize(
    ("header", "key", "value"),
    [
        (b"To: a@x.example, b@y.example,\r\n", "to", ["a@x.example", "b@y.example"]),
        (b"To: a@x.example\r\nTo: b@y.example\r\n", "to", ["a@x.example", "b@y.example"]),
        (b"To: undisclosed-recipients:;\r\n", "to", ["undisclosed-recipients:;"]),
        (b"To: the whole team\r\n", "to", ["the whole team"]),
        (b"Cc:\r\n", "cc", None),
        (b"Cc: \r\n \r\n", "cc", None),
        (b"Cc: ,\r\n", "cc", None),
        (b"Bcc: <>\r\n", "bcc", None),
        (b'From: "a.b" <a@x.example>\r\n', "from", ['"a.b" <a@x.example>']),
        (b'From: "a \\"b\\" c" <a@x.example>\r\n', "from", ['"a \\"b\\" c" <a@x.example>']),
        (b"From: =?utf-8?q?J=C3=BC?= <a@x.example>\r\n", "from", ["J\u00fc <a@x.example>"]),
        (b"From: =?utf-8?q?a=2C_b?= <a@x.example>\r\n", "from", ['"a, b" <a@x.example>']),
        (b"From: Ann (work) <a@x.example>\r\n", "from", ["Ann <a@x.example>"]),
        (b"Subject: =?utf-7?q?+2D0-?=\r\n", "subject", "\ufffd"),
        (b"Subject: \xff\xef\xbf\xbf\r\n", "subject", "\ufffd\uffff"),
        (b"Sender:  a@x.example\r\n", "sender", "a@x.example"),
        (b"Date: x\r\nDate: y\r\n", "date", "x"),
    ],
)
def test_common_headers(header, key, value):
    assert common(header).get(key) == value


@pytest.mark.parametrize(
    "value",
    [
        b"(" * 30_000, b"a:" * 15_000, b"@" * 30_000, b'"' * 30_000, b"<" * 30_000, b"\x00",
        b"=?unicode_escape?q?=5Cud83d?=", b"=?utf-7?q?+2D0-?=", b"\xed\xa0\xbd",
        b"=?punycode?q?" + b"a" * 1000 + b"-9?=",
    ],
)  # fmt: skip
def test_an_event_is_made_of_every_mail_and_can_be_sent(value):
    names = (b"From", b"To", b"Cc", b"Bcc", b"Reply-To", b"Subject", b"Sender", b"Date")
    header = b"".join(name + b": " + value + b"\r\n" for name in names)
    for view in ACTIONS.values():
        for text in (
            notification(mail(header), view, b"\xed\xa0\xbd"),
            function_event(mail(header), view),
        ):
            json.loads(text.encode())


@pytest.mark.parametrize(
    "value",
    [
        b"mx.example.com; dmarc=pass",
        b" MX.Example.COM ; dmarc=pass",
        b"mx.example.com.; dmarc=pass",
        b".mx.example.com; dmarc=pass",
        b"..mx.example.com..; dmarc=pass",
        b"mx.example.com 1; dmarc=pass",
        b"mx.example.com/1; dmarc=pass",
        b"(a (b) c) mx.example.com (d); dmarc=pass",
        b'"mx.example.com"; dmarc=pass',
        b'"mx.ex\\ample.com" 1; dmarc=pass',
        b"\r\n mx.example.com; dmarc=pass",
        b"(x)\r\n\t(y) mx.example.com; dmarc=pass",
        b"mx.example.com\x00; dmarc=pass",
        "ｍx.example.com; dmarc=pass".encode(),
        b"(open mx.example.com; dmarc=pass",
        b'"open mx.example.com; dmarc=pass',
        b"; dmarc=pass",
        b"",
        b"=?utf-8?q?mx.example.com?=; dmarc=pass",
        b"=?us-ascii?b?bXguZXhhbXBsZS5jb207IGRtYXJjPXBhc3M=?=",
        b"mx.example.com, mx.sender.example; dmarc=pass",
        b"mx.example.com=1; dmarc=pass",
        b'"mx.example.com"x; dmarc=pass',
        b"mx.example.com: dmarc=pass",
        b"mx\\.example.com; dmarc=pass",
        b"@mx.example.com; dmarc=pass",
        b"dmarc=pass header.from=bank.example",
        b"\xc2\xa0mx.example.com; dmarc=pass",
    ],
)
def test_results_in_our_name_are_left_out_however_they_are_spelt(value):
    own = b"Authentication-Results: " + value + b"\r\nSubject: hi\r\n"
    header = published_header(TRACE + own, ARRIVAL, None, scanned=False)
    assert field_values(header, "Authentication-Results") == []
    assert field_values(header, "Subject") == [b"hi"]


@pytest.mark.parametrize(
    "name",
    [
        b"X-SES-Spam-Verdict", b"x-ses-virus-verdict", b"X-SES-RECEIPT", b"X-Ses-Receipt",
        b"X-SES-DMARC-Verdict", b"X-SES-SPF-VERDICT", b"X-SES-Verdict",
    ],
)  # fmt: skip
def test_verdicts_that_came_with_a_mail_are_left_out(name):
    own = name + b": PASS\r\n more\r\nX-SES-Outgoing: 2026.11.26-192.0.2.1\r\n"
    header = published_header(TRACE + own, ARRIVAL, None, scanned=False)
    assert b"PASS" not in header
    assert b"more" not in header
    assert field_values(header, "X-SES-Outgoing") == [b"2026.11.26-192.0.2.1"]


@pytest.mark.parametrize(
    "value",
    [b"mx.sender.example; spf=pass", b"(mx.example.com) other.example; spf=pass", b"mx; spf=pass"],
)
def test_results_of_other_servers_stay(value):
    own = b"Authentication-Results: " + value + b"\r\n"
    header = published_header(TRACE + own, ARRIVAL, None, scanned=False)
    assert field_values(header, "Authentication-Results") == [value]


def test_headers_are_cut_at_10_kb_between_fields():
    header = b"".join(b"X-%d: %s\r\n" % (number, b"y" * 1000) for number in range(20))
    view = json.loads(function_event(mail(header), ACTIONS["lambda"]))["Records"][0]["ses"]
    assert view["mail"]["headersTruncated"] is True
    assert [entry["name"] for entry in view["mail"]["headers"]] == [f"X-{n}" for n in range(10)]


@pytest.mark.parametrize(
    ("prefix", "key"), [(None, "id"), ("", "id"), ("in", "in/id"), ("in/", "in/id"), ("/", "/id")]
)
def test_the_key_of_an_object(prefix, key):
    assert object_key(S3Action("mail", prefix), "id") == key


def test_verdicts_come_back_from_json():
    for verdicts in (PASSED, FAILED, UNKNOWN):
        assert verdicts_from_json(verdicts.to_json()) == verdicts


def test_scans_are_for_rules_that_scan():
    assert PASSED.statuses(scanned=True)["spamVerdict"] is Verdict.PASS
    assert PASSED.statuses(scanned=False)["spamVerdict"] is Verdict.DISABLED


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            (b"From", b"To", b"Subject", b"X-SES-RECEIPT", b"Authentication-Results", b"Date")
        ),
        st.binary(max_size=60).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"")),
    ),
    max_size=8,
)


@given(FIELDS)
def test_whatever_the_mail_says_it_becomes_json_and_a_header(fields):
    own = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    header = published_header(TRACE + own, ARRIVAL, FAILED, scanned=True)
    assert split_trace(header)[0] == TRACE
    assert len(field_values(header, "X-SES-RECEIPT")) == 1
    for view in ACTIONS.values():
        json.loads(notification(mail(header), view, own))
        json.loads(function_event(mail(header), view))
