"""The judge: nothing in what we write, and each mistake by its section."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.dsn import check, compose, parse
from tests.dsn.cases import CASES

CLEAN = compose(CASES["all-fields"], "b-1")


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_found_in_ours(name):
    assert [str(finding) for finding in check(compose(CASES[name], "b-1"))] == []


@pytest.mark.parametrize(
    ("old", "new", "section"),
    [
        (b"Thu, 01 Oct 2015 13:48:54 +0000", b"Thu, 01 Oct 15 13:48:54 UTC", "RFC 5322 §3.3"),
        (b"Thu, 01 Oct 2015 13:48:54 +0000", b"Thu, 41 Oct 2015 13:48:54 +0000", "RFC 5322 §3.3"),
        (b"Reporting-MTA: dns; mx.example.net\r\n", b"", "RFC 3464 §2.2.2"),
        (b"Reporting-MTA: dns; mx.example.net", b"Reporting-MTA: mx", "RFC 3464 §2.2.2"),
        (b"dns; mx.example.net", b"dns; mx example", "RFC 3464 §2.2.2"),
        (b"Action: delayed\r\n", b"", "RFC 3464 §2.3.3"),
        (b"Action: delayed", b"Action: bounced", "RFC 3464 §2.3.3"),
        (b"Action: delayed", b"Action: failed", "RFC 3464 §2.3.9"),
        (b"Action: delayed", b"Action: delivered", "RFC 3464 §2.3.4"),
        (b"Status: 4.2.2", b"Status: 4.2.2 mailbox full", "RFC 3464 §2.3.4"),
        (b"Status: 4.2.2", b"Status: over quota", "RFC 3464 §2.3.4"),
        (b"Status: 4.2.2", b"Status: 4.02.2", "RFC 3464 §2.3.4"),
        (b"Status: 4.2.2\r\n", b"", "RFC 3464 §2.3.4"),
        (b"Status: 4.2.2\r\n", b"Status: 4.2.2\r\nStatus: 4.2.2\r\n", "RFC 3464 §2.1"),
        (b"Final-Recipient: rfc822;", b"Final-Recipient:", "RFC 3464 §2.3.2"),
        (b"Final-Recipient: rfc822;", b"Final-Recipient: utf8;", "RFC 6533 §3"),
        (b"rfc822; final@", "rfc822; büb@".encode(), "RFC 6533 §3"),
        (b"Diagnostic-Code: smtp;", b"Diagnostic-Code:", "RFC 3464 §2.3.6"),
        (b"Diagnostic-Code: smtp; 452", b"Diagnostic-Code: smtp; the", "RFC 3461 §9.2"),
        (b"X-Queue-ID:", b"Queue-ID:", "RFC 3464 §2.4"),
        (b"X-Reason: over quota", b"over quota", "RFC 3464 §2.1.1"),
        (b"QQ314159", b"<lunch@sender.test>", "RFC 3464 §2.2.1"),
        (b"report-type=delivery-status", b"x=y", "RFC 6522 §3"),
        (b"multipart/report", b"multipart/mixed", "RFC 6522 §3"),
        (b"text/rfc822-headers", b"message/rfc822-headers", "RFC 6522 §3"),
        (b"message/delivery-status", b"message/delivery-status; charset=utf-8", "RFC 3464 §2.1"),
        (
            b"delivery-status\r\nContent-Transfer-Encoding: 7bit",
            b"delivery-status\r\nContent-Transfer-Encoding: quoted-printable",
            "RFC 3464 §2.1",
        ),
        (b"MIME-Version: 1.0", b"MIME-Version: 2", "RFC 2045 §4"),
        (b"Auto-Submitted: auto-replied\r\n", b"", "RFC 3834 §3.1.7"),
        (b"To: ann@sender.test\r\n", b"", "RFC 3464 §2"),
        (b"Subject: Delivery", b"Date: x\r\nSubject: Delivery", "RFC 5322 §3.6"),
        (b"Subject: Delivery", b"Return-Path: <a@b>\r\nSubject: Delivery", "RFC 3464 §2"),
        (b"Subject: Lunch", "Subject: Grüße".encode(), "RFC 2045 §2.7"),
        (b"Subject: Lunch", b"Subject: " + b"x" * 1000, "RFC 5322 §2.1.1"),
        (b"Dear Ann,\r\n", b"Dear Ann,\n", "RFC 5322 §2.3"),
    ],
)
def test_each_mistake_is_found_by_its_section(old, new, section):
    assert old in CLEAN
    sections = {finding.section for finding in check(CLEAN.replace(old, new, 1))}
    assert section in sections


OTHERS = Path(__file__).parent / "others"
# multipart/mixed, no Auto-Submitted, and the whole mail in text/rfc822-headers.
_OPENSMTPD = {"RFC 6522 §3", "RFC 3834 §3.1.7", "RFC 6522 §4"}
FOUND = {
    "exim-headers.eml": {"RFC 3461 §6.3"},  # Original-Recipient: …Bob+2Btag@…
    "opensmtpd-plain.eml": _OPENSMTPD,
    "opensmtpd-headers.eml": _OPENSMTPD,
    "opensmtpd-full.eml": _OPENSMTPD,
}


@pytest.mark.parametrize("file", sorted(OTHERS.glob("*.eml")), ids=lambda file: file.name)
def test_the_true_findings_in_the_bounces_of_others(file):
    sections = {finding.section for finding in check(file.read_bytes())}
    assert sections == FOUND.get(file.name, set())


@pytest.mark.parametrize("file", sorted(OTHERS.glob("*.eml")), ids=lambda file: file.name)
def test_the_bounces_of_others_are_read(file):
    (recipient,) = parse(file.read_bytes()).recipients
    assert (recipient.final_recipient, recipient.action) == ("bob@example.com", "failed")


def test_an_encoded_whole_mail_is_found():
    content = compose(CASES["return-full-small"], "b-1")
    bad = content.replace(
        b"rfc822\r\nContent-Transfer-Encoding: 7bit", b"rfc822\r\nContent-Transfer-Encoding: base64"
    )
    assert {finding.section for finding in check(bad)} == {"RFC 2046 §5.2.1"}


@given(st.binary())
def test_any_octets_are_judged(content):
    assert check(content)
    for marker in (b"Status: ", b"\r\n\r\n--b-1\r\n", b"Content-Type: "):
        check(CLEAN.replace(marker, content, 1))
