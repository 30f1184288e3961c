"""Notifications, function events and the published header, held against golden files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.headers import field_values, header_section, split_trace
from sendback.receipt.events import function_event, notification, object_key
from sendback.receipt.model import S3Action
from sendback.receipt.published import published_header
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
