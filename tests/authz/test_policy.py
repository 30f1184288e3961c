"""The grammar: what is read, and how each fault is named."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.authz.patterns import matches_text
from sendback.authz.policy import (
    PolicyError,
    PolicyKind,
    check_identity_policy,
    compact,
    parse_policy,
)

ARN = "arn:aws:ses:us-east-1:111111111111:identity/example.com"
GOOD = {
    "Sid": "One",
    "Effect": "Allow",
    "Principal": {"AWS": "222222222222"},
    "Action": "ses:SendBounce",
    "Resource": ARN,
}


def read(statement, **elements):
    document = {"Version": "2012-10-17", "Statement": statement, **elements}
    found = parse_policy(json.dumps(document), PolicyKind.IDENTITY)
    check_identity_policy(found, ARN)
    return found


def without(name):
    return {key: value for key, value in GOOD.items() if key != name}


def condition(operator, keys):
    return {**GOOD, "Condition": {operator: keys}}


def test_a_whole_policy():
    found = read([GOOD], Id="x")
    (statement,) = found.statements
    assert (found.document_id, statement.label, statement.actions) == (
        "x",
        "One",
        ("ses:SendBounce",),
    )


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (without("Effect"), "Statement[1]: Effect is missing"),
        ({**GOOD, "Effect": "allow"}, "Statement[1].Effect: must be Allow or Deny"),
        (without("Principal"), "Statement[1]: must have one of Principal and NotPrincipal"),
        (without("Action"), "Statement[1]: must have one of Action and NotAction"),
        (without("Resource"), "Statement[1]: must have one of Resource and NotResource"),
        (
            {**GOOD, "NotAction": "ses:*"},
            "Statement[1]: must have one of Action and NotAction",
        ),
        ({**GOOD, "Colour": 1}, "Statement[1]: 'Colour' is none of"),
        ([GOOD, "x"], "Statement[2]: must be an object"),
        ([], "Statement: must not be empty"),
        ([GOOD, GOOD], "Statement: two statements have the Sid One"),
        ({**GOOD, "Sid": 1}, "Statement[1].Sid: must be a string"),
        (
            {**GOOD, "Principal": {"AWS": "ann"}},
            "Statement[1].Principal.AWS: 'ann' is not a principal",
        ),
        (
            {**GOOD, "Principal": {"AWS": "arn:aws:iam::222222222222:user/*"}},
            "Statement[1].Principal.AWS: 'arn:aws:iam::222222222222:user/*' is not a principal",
        ),
        (
            {**GOOD, "Principal": {"AWS": "22222222222"}},
            "Statement[1].Principal.AWS: '22222222222' is not a principal",
        ),
        ({**GOOD, "Principal": {}}, 'Statement[1].Principal: must be "*" or an object'),
        ({**GOOD, "Principal": "222222222222"}, "Statement[1].Principal: must be"),
        (
            {**GOOD, "Principal": {"Federated": "x"}},
            "Statement[1].Principal.Federated: is not AWS or Service",
        ),
        (
            {**GOOD, "Principal": {"Service": "ses"}},
            "Statement[1].Principal.Service: 'ses' is not a service",
        ),
        (
            {**GOOD, "Principal": {"AWS": []}},
            "Statement[1].Principal.AWS: must not be empty",
        ),
        ({**GOOD, "Action": "SendBounce"}, "Statement[1].Action: 'SendBounce' is not an action"),
        ({**GOOD, "Action": "s3:GetObject"}, "Statement[1].Action: s3:GetObject is no action of"),
        ({**GOOD, "Action": 5}, "Statement[1].Action: must be a string"),
        ({**GOOD, "Resource": "example.com"}, "Statement[1].Resource: 'example.com' is not an ARN"),
        (
            {**GOOD, "Resource": ARN.replace("example.com", "other.example")},
            "is not the identity that the policy is for, " + ARN,
        ),
        (
            {**GOOD, "Resource": ARN.replace("1111", "3333")},
            "is not the identity that the policy is for",
        ),
        (condition("StringSame", {"a:b": "c"}), "StringSame: there is no operator StringSame"),
        (condition("ForSome:StringLike", {"a:b": "c"}), "ForSome is not one of ForAllValues"),
        (condition("NullIfExists", {"a:b": "true"}), "Null stands alone"),
        (condition("ForAnyValue:Null", {"a:b": "true"}), "Null stands alone"),
        (condition("StringEquals", {}), "Condition.StringEquals: must be an object"),
        (condition("StringEquals", {"b": "c"}), "StringEquals.b: is not a key"),
        (condition("StringEquals", {"a:b": []}), "StringEquals.a:b: must not be empty"),
        (condition("StringEquals", {"a:b": {}}), "must be a string, a number, a boolean"),
        (condition("StringEquals", {"a:b": None}), "must be a string, a number, a boolean"),
        (condition("NumericEquals", {"a:b": "x"}), "NumericEquals.a:b: 'x' is not a number"),
        (condition("DateLessThan", {"a:b": "soon"}), "'soon' is not a date such as"),
        (condition("DateLessThan", {"a:b": "2026-02-31"}), "'2026-02-31' is not a date"),
        (condition("Bool", {"a:b": "maybe"}), "'maybe' is neither true nor false"),
        (condition("Null", {"a:b": "x"}), "'x' is neither true nor false"),
        (condition("IpAddress", {"a:b": "1.2.3.4/33"}), "'1.2.3.4/33' is not an IP address"),
        (condition("ArnLike", {"a:b": "arn:x"}), "'arn:x' is not an ARN"),
        (condition("BinaryEquals", {"a:b": "%"}), "'%' is not base64"),
        ({**GOOD, "Condition": []}, "Statement[1].Condition: must be an object of operators"),
    ],
)
def test_faults_are_named_by_their_place(statement, expected):
    with pytest.raises(PolicyError) as caught:
        read(statement)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not a JSON document"),
        ("[]", "a policy is a JSON object"),
        ("{", "not a JSON document"),
        ('{"Statement": NaN}', "not a JSON document: NaN"),
        ('{"Version": "2012-10-17"}', "Statement is missing"),
        ('{"Version": "2020-01-01", "Statement": {}}', "Version: must be one of"),
        ('{"Statement": {}, "statement": {}}', "'statement' is none of"),
        ('{"Statement": {}, "Statement": {}}', "'Statement' stands twice"),
        ('{"Id": "\\ud800", "Statement": {}}', "half of a surrogate pair"),
        ('{"Statement":' + "[" * 3000 + "]" * 900 + "}", "not a JSON document"),
        ('{"Id":"' + "x" * 4096 + '"}', "the policy has 4105 octets, 4096 are allowed"),
        ('{"Id":"' + "é" * 2045 + '"}', "the policy has 4099 octets"),
    ],
)
def test_documents_that_are_none(text, expected):
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, PolicyKind.IDENTITY)
    assert expected in str(caught.value)


def test_the_older_version_is_meant_when_none_is_named():
    found = parse_policy(json.dumps({"Statement": GOOD}), PolicyKind.IDENTITY)
    assert (found.version, found.has_variables) == ("2008-10-17", False)


def test_a_users_policy_names_no_principal():
    with pytest.raises(PolicyError, match="names no Principal"):
        parse_policy(json.dumps({"Statement": GOOD}), PolicyKind.USER)
    found = parse_policy(json.dumps({"Statement": without("Principal")}), PolicyKind.USER)
    assert found.statements[0].principals == ()


def test_numbers_and_booleans_are_values():
    found = read(condition("StringEquals", {"a:b": [1, 2.5, True, "x"]}))
    assert found.statements[0].conditions[0].values == ("1", "2.5", "true", "x")


def test_what_a_variable_stands_for_is_not_checked_beforehand():
    found = read(condition("NumericEquals", {"a:b": "${aws:EpochTime}"}))
    assert found.statements[0].conditions[0].values == ("${aws:EpochTime}",)


def test_compact_keeps_what_stands_in_strings():
    text = '{ "a" :\t[1.50, "x  \\" y\\\\" ],\r\n"b": " " }'
    assert compact(text) == '{"a":[1.50,"x  \\" y\\\\"],"b":" "}'


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_json)
def test_compact_means_the_same(value):
    text = json.dumps(value, indent=3)
    assert json.loads(compact(text)) == value
    assert compact(compact(text)) == compact(text)


@pytest.mark.fuzz
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_no_text_does_anything_but_raise_a_policy_error(text):
    with pytest.raises(PolicyError):
        parse_policy(text, PolicyKind.IDENTITY)


_elements = st.sampled_from(
    ["Version", "Statement", "Effect", "Principal", "Action", "Resource", "Condition", "Sid", "AWS",
     "StringEquals", "ForAnyValue:Null", "ses:FromAddress", "2012-10-17", "Allow", "*", "ses:*"]
)  # fmt: skip
_policies = st.recursive(
    _elements | st.booleans() | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_elements, inner, max_size=4),
)


@pytest.mark.fuzz
@given(_policies)
def test_nonsense_of_the_right_words(value):
    try:
        parse_policy(json.dumps(value), PolicyKind.IDENTITY)
    except PolicyError:
        return


@pytest.mark.fuzz
@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_patterns_agree_with_a_regular_expression(pattern, text):
    import re

    expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in pattern)
    assert matches_text(pattern, text) is (re.fullmatch(expression, text, re.DOTALL) is not None)


def test_a_pattern_of_many_stars_is_not_slow():
    assert not matches_text("*a" * 1000 + "b", "a" * 4000)
