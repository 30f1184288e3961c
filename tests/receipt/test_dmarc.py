"""DMARC: records, alignment, policies (RFC 7489)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.receipt.dmarc import (
    choose_record,
    evaluate,
    evaluate_several,
    has_record,
    parse_record,
)
from sendback.receipt.verdicts import DkimResult, SpfResult


def organization(domain):
    return ".".join(domain.split(".")[-2:])


RELAXED = parse_record("v=DMARC1; p=reject; sp=quarantine")
STRICT = parse_record("v=DMARC1; p=reject; adkim=s; aspf=s")


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("v=DMARC1; p=none", "none"),
        ("v=DMARC1;p=REJECT;", "reject"),
        ("v = DMARC1 ; p = quarantine", "quarantine"),
        ("v=DMARC1; p=nonsense; rua=mailto:a@b", "none"),
        ("v=DMARC1; p=nonsense", None),
        ("v=DMARC1", None),
        ("p=none; v=DMARC1", None),
        ("v=spf1 -all", None),
        ("", None),
    ],
)
def test_records(text, policy):
    record = parse_record(text)
    assert (record.policy if record else None) == policy


def test_two_records_are_none():
    assert choose_record(["v=DMARC1; p=none", "v=spf1 -all"]).policy == "none"
    assert choose_record(["v=DMARC1; p=none", "v=DMARC1; p=reject"]) is None


@pytest.mark.parametrize(
    ("texts", "ends"),
    [
        ([], False),
        (["v=spf1 -all", "v=DMARC2; p=none"], False),
        (["v=DMARC1; p=none"], True),
        (["v=DMARC1; p=nonsense"], True),
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], True),
    ],
)
def test_the_search_ends_where_there_is_any_record(texts, ends):
    assert has_record(texts) is ends


NONE = SpfResult("none", "")


@pytest.mark.parametrize(
    ("record", "spf", "dkim", "result"),
    [
        (None, NONE, (), "none"),
        (RELAXED, SpfResult("pass", "example.com"), (), "pass"),
        (RELAXED, SpfResult("pass", "bounces.example.com"), (), "pass"),
        (STRICT, SpfResult("pass", "bounces.example.com"), (), "fail"),
        (RELAXED, SpfResult("pass", "elsewhere.example"), (), "fail"),
        (RELAXED, SpfResult("softfail", "example.com"), (), "fail"),
        (RELAXED, NONE, (DkimResult("pass", "example.com", "s"),), "pass"),
        (RELAXED, NONE, (DkimResult("pass", "m.example.com", "s"),), "pass"),
        (STRICT, NONE, (DkimResult("pass", "m.example.com", "s"),), "fail"),
        (RELAXED, NONE, (DkimResult("fail", "example.com", "s"),), "fail"),
        (RELAXED, NONE, (DkimResult("pass", "not a domain", "s"),), "fail"),
        (RELAXED, NONE, (DkimResult("temperror", "example.com", "s"),), "temperror"),
        (RELAXED, SpfResult("temperror", "example.com"), (), "temperror"),
        # What is not aligned changes nothing.
        (RELAXED, SpfResult("temperror", "elsewhere.example"), (), "fail"),
        (RELAXED, SpfResult("temperror", ""), (), "fail"),
        (STRICT, SpfResult("temperror", "bounces.example.com"), (), "fail"),
        (RELAXED, NONE, (DkimResult("temperror", "elsewhere.example", "s"),), "fail"),
        (RELAXED, NONE, (DkimResult("temperror", "not a domain", "s"),), "fail"),
        (
            RELAXED,
            SpfResult("pass", "example.com"),
            (DkimResult("temperror", "example.com", "s"),),
            "pass",
        ),
    ],
)
def test_results(record, spf, dkim, result):
    found = evaluate("example.com", record, spf, dkim, organization, record_is_own=True)
    assert found.result == result
    assert found.domain == "example.com"


def test_a_subdomain_has_the_policy_for_subdomains():
    found = evaluate("a.example.com", RELAXED, NONE, (), organization, record_is_own=False)
    assert (found.result, found.policy) == ("fail", "quarantine")
    found = evaluate("a.example.com", RELAXED, NONE, (), organization, record_is_own=True)
    assert found.policy == "reject"


@pytest.mark.parametrize(
    ("policies", "strictest"),
    [
        ((), "none"),
        (("none",), "none"),
        (("reject", "none"), "reject"),
        (("quarantine",), "quarantine"),
    ],
)
def test_several_authors_fail_under_the_strictest_policy(policies, strictest):
    found = evaluate_several(("a.example", "b.example"), policies)
    assert (found.result, found.domain, found.policy) == ("fail", "a.example", strictest)


@given(st.text(max_size=200))
def test_a_strangers_record_is_no_surprise(text):
    parse_record(text)
    parse_record("v=DMARC1;" + text)
