"""What the console reads and makes without a server: searches, content, dates."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.console.mail_parts import harmless, part_content, read_mail
from sendback.console.rendering import duration, size, visible, when
from sendback.console.search import SearchError, date_of_id, parse_search
from sendback.ids import RandomIds
from tests.partners.hostile_mails import HTML, MAILS

DATES = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - made aware
    lambda date: date.replace(tzinfo=UTC)
)
ACTIVE = re.compile(
    r"<\s*(script|iframe|object|embed|form|base|meta|link|style|svg)", re.IGNORECASE
)
WORDS = st.sampled_from(["from:", "state:", '"', " ", "before:", "verdict:", "x", "é", "\0", ":"])


@given(st.text(max_size=200) | st.lists(WORDS, max_size=30).map("".join))
def test_any_text_is_a_search_or_an_error(text):
    try:
        found = parse_search(text)
    except SearchError as error:
        assert str(error)
    else:
        assert len(found.terms) <= 10
        assert all(word.isascii() for word in found.conditions.words)


@given(DATES)
def test_the_date_of_an_id(date):
    message_id = RandomIds().received_message(date)
    assert abs(date_of_id(message_id) - date) < timedelta(milliseconds=2)


@given(DATES, DATES)
def test_dates_are_spans_of_ids(one, two):
    ids = RandomIds()
    found = parse_search(f"after:{one.isoformat()}")
    if abs(one - two) > timedelta(milliseconds=2):
        assert (ids.received_message(two) >= found.since) == (two > one)


@given(st.binary(max_size=2000))
def test_any_octets_can_be_shown(octets):
    mail = read_mail(octets, is_cut=False)
    for part in mail.parts:
        if part.is_leaf:
            assert part_content(octets, part.number) is not None


@pytest.mark.parametrize("name", MAILS)
def test_hostile_mails_are_read_within_bounds(name):
    mail = read_mail(MAILS[name], is_cut=False)
    assert len(mail.parts) <= 300
    assert mail.problem or mail.parts
    for part in mail.parts:
        assert not re.search(r"[/\\<>\"\x00-\x1f\u202e]", part.name)


@given(st.sampled_from(sorted(HTML)) | st.text(max_size=300))
def test_nothing_in_harmless_html_acts(name):
    cleaned, _ = harmless(HTML.get(name, name))
    for element in re.findall(r"<[^>]*>", cleaned):
        assert not ACTIVE.match(element)
        assert not re.search(r"\son\w+\s*=", re.sub(r'"[^"]*"', '""', element), re.IGNORECASE)
        assert not re.search(
            r'\s(?:src|href|background|poster)="(?!data:image/)', element, re.IGNORECASE
        )


def test_what_is_invisible_is_shown():
    assert visible("a\u202eb\tc\n\x1b[2J") == "a\\u202eb\tc\n\\x1b[2J"


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0 octets"), (1023, "1023 octets"), (18_432, "18 KB"), (3_565_158, "3.4 MB")],
)
def test_sizes(octets, text):
    assert size(octets) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(4, "4 ms"), (1300, "1.3 s"), (120_000, "2 min"), (7_200_000, "2 h"), (432_000_000, "5 days")],
)
def test_durations(milliseconds, text):
    assert duration(milliseconds) == text


def test_dates_without_scripts():
    shown = str(when(datetime(2026, 11, 27, 10, 42, 7, tzinfo=UTC), "full"))
    assert ">2026-11-27 10:42:07</time>" in shown
    assert when(None) == ""
