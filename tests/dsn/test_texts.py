"""The human part: every language complete, the right words, nothing taken for markup."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.dsn import (
    ENGLISH,
    REASONS,
    TextsError,
    builtin_texts,
    choose_texts,
    compose,
    parse,
    parse_texts,
)
from tests.dsn.cases import CASES, bounce, recipient
from tests.golden import check_golden

LANGUAGES = ("en", "de", "fr", "es", "ja", "zh")


def test_these_languages_ship():
    assert sorted(builtin_texts()) == sorted(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_a_text_wherever_english_has_one(language):
    texts = builtin_texts()[language]
    for name in ("happened", "why", "what_to_do"):
        assert getattr(texts, name).keys() == getattr(ENGLISH, name).keys()
    for text in (*texts.happened.values(),):
        assert "{recipient}" in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_golden_file(language):
    case = CASES["three-recipients-mixed-actions"]
    content = compose(case, "b-1", builtin_texts()[language])
    check_golden(f"dsn/language-{language}.eml", content)
    parsed = parse(content)
    assert parsed.explanation.splitlines()[0] == builtin_texts()[language].first_line
    for entry in case.report.recipients:
        assert str(entry.final_recipient) in parsed.explanation


def test_english_begins_with_the_line_that_ses_writes():
    assert ENGLISH.explain(bounce().report).split("\n")[0] == "This message could not be delivered."


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("DoesNotExist", "no mailbox of this name"),
        ("MessageTooLarge", "too large"),
        ("ExceededQuota", "mailbox is full"),
        ("ContentRejected", "content of the message"),
        ("Undefined", "no clear reason"),
        ("TemporaryFailure", "no clear reason"),
    ],
)
def test_the_words_fit_the_reason(reason, words):
    text = ENGLISH.explain(bounce(recipient(reason=reason)).report)
    assert words in text
    assert REASONS[reason].text in text


def test_the_most_exact_text_wins():
    for status, words in (
        ("5.2.1", "switched off"),
        ("5.2.99", "cannot take"),
        ("5.9.9", "no clear"),
    ):
        assert words in ENGLISH.explain(bounce(recipient(status=status)).report)


def test_what_a_placeholder_brings_in_is_no_placeholder():
    hostile = recipient(diagnostic_code="smtp; 550 {recipient} {status} {0.__class__}")
    assert "550 {recipient} {status} {0.__class__}" in ENGLISH.explain(bounce(hostile).report)


EVERYTHING = """
first_line = "F {reporting_mta}"
report_line = "R"
details = "D"
happened = {failed = "a", delayed = "b", delivered = "c", relayed = "d", expanded = "e"}
why = {default = "{status} {diagnostic} {reporting_mta} {remote_mta} {arrival_date}"}
what_to_do = {default = "w"}
"""


def test_a_language_may_be_added():
    texts = parse_texts("pt-br", EVERYTHING)
    assert "5.1.1 550 5.1.1 Mailbox does not exist mx.example.net" in texts.explain(bounce().report)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{status}", "{sender}", "{sender}"),
        ("F {reporting_mta}", "F {recipient}", "{recipient}"),
        ('details = "D"', "", "details"),
        ('details = "D"', "details = 1", "details"),
        ('relayed = "d", ', "", "happened.relayed"),
        ('why = {default = "', 'why = {"2.2" = "', "why.default"),
        ('what_to_do = {default = "w"', 'what_to_do = {default = "w", x = "y"', "what_to_do.x"),
        ('report_line = "R"', 'report_line = "R"\nodd = "x"', "odd"),
        ('report_line = "R"', "report_line = ", "TOML"),
        ("what_to_do = {", "what_to_do = 3 #", "what_to_do"),
    ],
)
def test_a_file_that_cannot_be_used_says_which_entry(old, new, words):
    assert old in EVERYTHING
    with pytest.raises(TextsError) as caught:
        parse_texts("xx", EVERYTHING.replace(old, new))
    assert words in str(caught.value)
    assert str(caught.value).startswith("xx")


@pytest.mark.parametrize(
    ("wanted", "language"),
    [
        ("de", "de"),
        ("de-AT", "de"),
        ("DE-at, en;q=0.8", "de"),
        ("en;q=0.3, fr;q=0.7", "fr"),
        ("tlh, ja", "ja"),
        ("zh-Hant-TW", "zh"),
        ("de;q=0, es", "es"),
        ("tlh", None),
        ("", None),
        ("*", None),
        (";;;,,,q=", None),
    ],
)
def test_the_language_is_what_the_sender_reads(wanted, language):
    found = choose_texts(builtin_texts(), wanted)
    assert (found.language if found else None) == language


@given(st.text())
def test_any_wish_is_understood_or_not(wanted):
    choose_texts(builtin_texts(), wanted)


def test_an_explanation_replaces_all_of_it():
    content = compose(replace(bounce(), explanation="Sorry."), "b-1", builtin_texts()["ja"])
    assert parse(content).explanation == "Sorry.\r\n"
