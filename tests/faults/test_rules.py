"""Fault rules: their form, what they match, and when they are due."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.errors import InvalidInputError
from sendback.faults.chaos import parse_chaos, to_chaos
from sendback.faults.model import FaultEvent, Point
from sendback.faults.rules import parse_fault


def due(until, **count):
    rule = parse_fault({"at": "mail", "drop": True, **count})
    return [number for number in range(1, until + 1) if rule.is_due(number)]


@given(number=st.integers(1, 50), until=st.integers(1, 200))
def test_counts(number, until):
    numbers = range(1, until + 1)
    assert due(until) == list(numbers)
    assert due(until, first=number) == list(numbers)[:number]
    assert due(until, every=number) == list(numbers)[number - 1 :: number]
    assert due(until, **{"from": number}) == list(numbers)[number - 1 :]
    assert due(until, only=number) == [number for each in numbers if each == number]


@given(st.floats(0.01, 1), st.integers(-(2**62), 2**62))
def test_a_probability_selects_the_same_events_each_time(probability, seed):
    first = due(2000, probability=probability, seed=seed)
    assert first == due(2000, probability=probability, seed=seed)
    assert abs(len(first) / 2000 - probability) < 0.1


def test_seeds_select_different_events():
    assert due(100, probability=0.5, seed=1) != due(100, probability=0.5, seed=2)


RULES = [
    {"at": "connect", "client": "192.0.2.0/24", "drop": True},
    {"at": "rcpt", "sender": "<>", "recipient": "*@example.com", "reply": "450 4.2.1 Busy"},
    {"at": "end", "name": "slow", "delay": 2.5, "every": 3},
    {"at": "api", "operation": "SendBounce", "error": "Throttling", "text": "Slow", "first": 2},
    {"at": "api", "lost": True, "only": 4, "probability": 0.25, "seed": 7},
    {"at": "delivery", "failure": "permanent", "from": 5},
    {"at": "action", "action": "Lambda", "failure": "temporary"},
]  # fmt: skip


@pytest.mark.parametrize("form", RULES)
def test_the_json_form_is_the_rule(form):
    rule = parse_fault(form)
    assert rule.to_json() == form
    assert parse_fault(json.loads(json.dumps(rule.to_json()))) == rule


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ([], "must be an object"),
        ({}, "at is missing: it is one of connect, mail"),
        ({"at": "helo", "drop": True}, "'helo' is no point"),
        ({"at": ["rcpt"], "drop": True}, "is no point"),
        ({"at": "rcpt", "dorp": True}, "dorp is none of action, at, client"),
        ({"at": "rcpt"}, "the fault has no effect: at rcpt give one of delay, drop, reply"),
        ({"at": "rcpt", "drop": False}, "no effect"),
        ({"at": "rcpt", "drop": True, "reply": "550"}, "not both reply and drop"),
        ({"at": "rcpt", "drop": True, "first": 1, "every": 2}, "not both first and every"),
        ({"at": "api", "error": "Throttling", "sender": "a@b.example"}, "sender can never apply"),
        ({"at": "rcpt", "error": "Throttling"}, "error can never apply at rcpt"),
        ({"at": "connect", "recipient": "a@b.example", "drop": True}, "can never apply"),
        ({"at": "action", "reply": "550 no"}, "can never apply"),
        ({"at": "rcpt", "drop": True, "first": 0}, "first: 0 can never match"),
        ({"at": "rcpt", "drop": True, "every": -1}, "can never match"),
        ({"at": "rcpt", "drop": True, "only": True}, "whole number"),
        ({"at": "rcpt", "drop": True, "only": 1.5}, "whole number"),
        ({"at": "rcpt", "drop": "yes"}, "must be true or false"),
        ({"at": "rcpt", "drop": True, "client": "10.0.0.0/40"}, "is no IP address or network"),
        ({"at": "rcpt", "drop": True, "client": "localhost"}, "is no IP address or network"),
        ({"at": "rcpt", "drop": True, "recipient": "<>"}, "can never match"),
        ({"at": "rcpt", "drop": True, "recipient": "bob@"}, "can never match"),
        ({"at": "rcpt", "drop": True, "recipient": "bob@exa mple"}, "can never match"),
        ({"at": "rcpt", "drop": True, "sender": "a\r\n@b.example"}, "can never match"),
        ({"at": "rcpt", "drop": True, "sender": "a" * 400}, "can never match"),
        ({"at": "api", "operation": "SendBunce", "lost": True}, "is no operation of the SES API"),
        ({"at": "api", "error": "Throtling"}, "is no error code"),
        ({"at": "action", "action": "Lamda", "failure": "temporary"}, "is none of AddHeader"),
        ({"at": "action", "failure": "final"}, "none of temporary, permanent"),
        ({"at": "rcpt", "reply": "250 2.0.0 Ok"}, "a code from 400 to 599"),
        ({"at": "rcpt", "reply": "550 4.1.1 No"}, "does not belong"),
        ({"at": "rcpt", "reply": "550 5.1.1 No\r\n250 Yes"}, "one line"),
        ({"at": "rcpt", "reply": "550 5.1.1 " + "x" * 500}, "up to 400"),
        ({"at": "rcpt", "reply": "550 5.1.1 Nö"}, "ASCII"),
        ({"at": "rcpt", "delay": 601}, "0 to 600 seconds"),
        ({"at": "rcpt", "delay": float("nan")}, "0 to 600 seconds"),
        ({"at": "rcpt", "delay": "5s"}, "must be a number"),
        ({"at": "rcpt", "drop": True, "probability": 0}, "more than 0"),
        ({"at": "rcpt", "drop": True, "probability": 1.1}, "at most 1"),
        ({"at": "rcpt", "drop": True, "seed": 2**63}, "63 bits"),
        ({"at": "rcpt", "drop": True, "text": "x"}, "text belongs to"),
        ({"at": "rcpt", "drop": True, "name": "a b"}, "letters"),
    ],
)
def test_a_rule_that_can_never_take_effect_is_refused_with_the_reason(form, reason):
    with pytest.raises(InvalidInputError, match=reason):
        parse_fault(form)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_NAMES = st.sampled_from([*(name for form in RULES for name in form), "x"])


@pytest.mark.fuzz
@given(st.dictionaries(_NAMES, _VALUES))
def test_any_json_is_a_rule_or_refused(value):
    try:
        rule = parse_fault(value)
    except InvalidInputError:
        return
    assert parse_fault(rule.to_json()) == rule


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("example.com", "bob@example.com", True),
        ("example.com", "bob@sub.example.com", False),
        ("*.example.com", "bob@sub.example.com", True),
        ("b*@example.com", "bob@example.com", True),
        ("b?b@example.com", "bob@example.com", True),
        ("b?b@example.com", "bb@example.com", False),
        ("exämple.com", "bob@xn--exmple-cua.com", True),
        ("*", "bob@example.com", True),
    ],
)
def test_patterns(pattern, address, matches):
    rule = parse_fault({"at": "rcpt", "recipient": pattern, "drop": True})
    assert rule.matches(FaultEvent(Point.RCPT, recipients=("x@y.example", address))) is matches
    assert not rule.matches(FaultEvent(Point.RCPT))


@pytest.mark.parametrize(
    ("network", "client", "matches"),
    [
        ("192.0.2.0/24", "192.0.2.7", True),
        ("192.0.2.0/24", "::ffff:192.0.2.7", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:db8::/32", "192.0.2.7", False),
        ("0.0.0.0/0", "unknown", False),
    ],
)
def test_networks(network, client, matches):
    rule = parse_fault({"at": "connect", "client": network, "drop": True})
    assert rule.matches(FaultEvent(Point.CONNECT, client=client)) is matches


OFF = {"ErrorCode": 451, "Probability": 0}


def test_mailpits_chaos_as_rules():
    given_form = {"Sender": {"ErrorCode": 550, "Probability": 100}, "Recipient": {"Probability": 7}}
    rules = parse_chaos({**given_form, "Authentication": {"ErrorCode": 535, "Probability": 0}})
    assert [rule.to_json() for rule in rules] == [
        {"at": "mail", "name": "chaos-sender", "reply": "550 5.0.0 Injected fault"},
        {"at": "rcpt", "name": "chaos-recipient", "reply": "451 4.0.0 Injected fault",
         "probability": 0.07},
    ]  # fmt: skip
    assert to_chaos(rules) == {
        "Sender": {"ErrorCode": 550, "Probability": 100},
        "Recipient": {"ErrorCode": 451, "Probability": 7},
        "Authentication": OFF,
    }
    assert parse_chaos({}) == ()
    assert to_chaos(()) == dict.fromkeys(("Sender", "Recipient", "Authentication"), OFF)


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ([], "an object"),
        ({"Senders": {}}, "Senders is none of Sender, Recipient, Authentication"),
        ({"Sender": 1}, "must have ErrorCode and Probability"),
        ({"Sender": {"ErrorCode": 250}}, "400 to 599"),
        ({"Sender": {"ErrorCode": "451"}}, "400 to 599"),
        ({"Sender": {"Probability": 101}}, "0 to 100"),
        ({"Sender": {"Probability": True}}, "0 to 100"),
        ({"Authentication": {"Probability": 5}}, "offers no AUTH"),
    ],
)
def test_chaos_that_cannot_be_set(form, reason):
    with pytest.raises(InvalidInputError, match=reason):
        parse_chaos(form)
