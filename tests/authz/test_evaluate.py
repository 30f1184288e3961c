"""The evaluator against its truth table, and what must hold for all policies."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.authz.conditions import NULL, OPERATORS, Condition, holds
from sendback.authz.evaluate import (
    AccessRequest,
    DecisionType,
    Requester,
    decide,
    evaluate,
    mismatch,
)
from sendback.authz.policy import Effect, Policy, PolicyKind, Principal, Statement, parse_policy
from tests.authz.cases import (
    ACTIONS,
    ARN,
    CONDITIONS,
    PRINCIPALS,
    RESOURCES,
    VARIABLES,
    A,
    B,
)

KEY = "ses:FromAddress"
CONTEXT = {
    "aws:username": ["ann*"],
    "aws:principalaccount": [A],
    "ses:recipients": ["a@x", "b@x"],
}


def policy(statement=None, kind=PolicyKind.IDENTITY, version="2012-10-17", **elements):
    given = {"Effect": "Allow", "Action": "ses:SendBounce", "Resource": "*"}
    if kind is PolicyKind.IDENTITY:
        given["Principal"] = {"AWS": B}
    for name in elements:
        given.pop(name.removeprefix("Not"), None)
    document = {"Version": version, "Statement": statement or {**given, **elements}}
    return parse_policy(json.dumps(document), kind, "p")


def request(context=None, *, action="ses:SendBounce", resource=ARN, who=None):
    requester = Requester(*(who or (B, f"arn:aws:iam::{B}:user/ann", "")))
    return AccessRequest(requester, action, resource, context or {})


def allows(found, asked):
    return evaluate([found], asked).is_allowed


def test_the_table_is_as_long_as_promised():
    assert sum(map(len, (CONDITIONS, PRINCIPALS, ACTIONS, RESOURCES, VARIABLES))) >= 150
    assert {line[0].split(":")[-1].removesuffix("IfExists") for line in CONDITIONS} == set(
        OPERATORS
    )


@pytest.mark.parametrize(("operator", "wanted", "values", "expected"), CONDITIONS)
def test_conditions(operator, wanted, values, expected):
    found = policy(Condition={operator: {KEY: wanted}})
    context = {} if values is None else {KEY.lower(): values}
    assert allows(found, request(context)) is expected


@pytest.mark.parametrize(("principal", "who", "expected"), PRINCIPALS)
def test_principals(principal, who, expected):
    if isinstance(principal, dict) and "NOT" in principal:
        found = policy(NotPrincipal=principal["NOT"])
    else:
        found = policy(Principal=principal)
    assert allows(found, request(who=who)) is expected


@pytest.mark.parametrize(("element", "action", "expected"), ACTIONS)
def test_actions(element, action, expected):
    assert allows(policy(**element), request(action=action)) is expected


@pytest.mark.parametrize(("element", "resource", "expected"), RESOURCES)
def test_resources(element, resource, expected):
    assert allows(policy(**element), request(CONTEXT, resource=resource)) is expected


@pytest.mark.parametrize(("version", "wanted", "value", "expected"), VARIABLES)
def test_variables(version, wanted, value, expected):
    found = policy(version=version, Condition={"StringLike": {KEY: wanted}})
    assert allows(found, request({**CONTEXT, KEY.lower(): [value]})) is expected


def test_all_operators_and_all_keys_must_hold():
    found = policy(
        Condition={
            "StringEquals": {"a:x": "1", "a:y": "2"},
            "NumericLessThan": {"a:z": 10},
        }
    )
    whole = {"a:x": ["1"], "a:y": ["2"], "a:z": ["3"]}
    assert allows(found, request(whole))
    for key in whole:
        assert not allows(found, request({k: v for k, v in whole.items() if k != key}))


def test_a_deny_wins_wherever_it_stands():
    allow = {"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}
    deny = {**allow, "Effect": "Deny", "Sid": "No"}
    for statements in ([allow, deny], [deny, allow]):
        decision = evaluate([policy(statements)], request())
        assert decision.type is DecisionType.EXPLICIT_DENY
        assert decision.decided_by == "p, No"


def test_without_a_matching_statement_nothing_is_allowed():
    decision = evaluate([policy(Action="ses:SendEmail")], request())
    assert decision.type is DecisionType.IMPLICIT_DENY
    assert decision.decided_by == ""


ALLOW_USER = policy(kind=PolicyKind.USER)
DENY_USER = policy(kind=PolicyKind.USER, Effect="Deny")
OTHER_USER = policy(kind=PolicyKind.USER, Action="ses:ListIdentities")
ALLOW, DENY = policy(), policy(Effect="Deny")


@pytest.mark.parametrize(
    ("user", "resource", "owned", "expected"),
    [
        (None, [], True, True),
        (None, [], False, False),
        (None, [ALLOW], False, True),
        (None, [DENY], True, False),
        (None, [ALLOW, DENY], False, False),
        ([], [], True, False),
        ([], [ALLOW], True, True),
        ([], [ALLOW], False, False),
        ([ALLOW_USER], [], True, True),
        ([ALLOW_USER], [], False, False),
        ([ALLOW_USER], [ALLOW], False, True),
        ([OTHER_USER], [ALLOW], False, False),
        ([OTHER_USER], [], True, False),
        ([ALLOW_USER, DENY_USER], [ALLOW], True, False),
        ([DENY_USER], [ALLOW], False, False),
        ([ALLOW_USER], [DENY], True, False),
    ],
)
def test_users_and_resources_together(user, resource, owned, expected):
    decision = decide(request(), user=user, resource=resource, owned=owned)
    assert decision.is_allowed is expected


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"Principal": {"AWS": A}}, "Principal"),
        ({"Action": "ses:SendEmail"}, "Action"),
        ({"Resource": ARN + "x"}, "Resource"),
        ({"Condition": {"StringEquals": {KEY: "a"}}}, "Condition StringEquals ses:fromaddress"),
        ({}, None),
    ],
)
def test_what_does_not_match_is_named(elements, expected):
    found = policy(**elements)
    assert mismatch(found, found.statements[0], request()) == expected


# --- properties -----------------------------------------------------------------------------------

_names = st.sampled_from(["ses:SendBounce", "ses:SendEmail", "ses:Send*", "ses:*", "*"])
_resources = st.sampled_from([ARN, ARN + "x", "*", "arn:aws:ses:*:*:identity/*"])
_principals = st.sampled_from(
    [Principal("AWS", value) for value in (A, B, "*", f"arn:aws:iam::{B}:user/ann")]
)
_operators = st.sampled_from(sorted(OPERATORS))
_values = st.sampled_from(["a", "*", "1", "true", "2026-03-01", "192.0.2.0/24", ARN, "QQ=="])
_keys = st.sampled_from(["ses:fromaddress", "aws:sourceip", "aws:currenttime"])
_conditions = st.builds(
    Condition,
    _operators,
    _keys,
    st.lists(_values, min_size=1, max_size=2).map(tuple),
    st.sampled_from(["", "ForAllValues", "ForAnyValue"]),
    st.booleans(),
).map(
    lambda condition: (
        replace(condition, quantifier="", if_exists=False)
        if condition.operator == NULL
        else condition
    )
)


def _several(strategy, most=2):
    return st.lists(strategy, min_size=1, max_size=most).map(tuple)


_statements = st.builds(
    Statement,
    st.integers(1, 9),
    st.just(""),
    st.sampled_from(list(Effect)),
    principals=_several(_principals),
    actions=_several(_names),
    resources=_several(_resources),
    conditions=st.lists(_conditions, max_size=2).map(tuple),
)
_policies = st.lists(
    st.builds(Policy, st.just("2012-10-17"), st.lists(_statements, max_size=3).map(tuple)),
    max_size=3,
)
_contexts = st.dictionaries(_keys, st.lists(_values, max_size=2), max_size=3)
_requests = st.builds(
    AccessRequest,
    st.sampled_from(
        [Requester(B, f"arn:aws:iam::{B}:user/ann"), Requester(A, f"arn:aws:iam::{A}:root")]
    ),
    st.sampled_from(["ses:SendBounce", "ses:SendEmail", "ses:ListIdentities"]),
    st.sampled_from([ARN, "*"]),
    _contexts,
)
_user_policies = st.none() | _policies


@pytest.mark.fuzz
@given(_policies, _user_policies, _requests, _statements, st.booleans(), st.booleans())
def test_adding_a_deny_never_widens(resource, user, asked, statement, owned, to_user):
    deny = Policy("2012-10-17", (replace(statement, effect=Effect.DENY),))
    before = decide(asked, user=user, resource=resource, owned=owned)
    more_user = [*user, deny] if to_user and user is not None else user
    more_resource = resource if more_user is not user else [*resource, deny]
    after = decide(asked, user=more_user, resource=more_resource, owned=owned)
    assert before.is_allowed or not after.is_allowed


@pytest.mark.fuzz
@given(_policies, _user_policies, _requests, st.booleans(), st.data())
def test_removing_an_allow_never_widens(resource, user, asked, owned, data):
    places = [
        (kind, number, statement)
        for kind, policies in (("resource", resource), ("user", user or []))
        for number, found in enumerate(policies)
        for statement in found.statements
        if statement.effect is Effect.ALLOW
    ]
    if not places:
        return
    kind, number, gone = data.draw(st.sampled_from(places))

    def without(policies):
        found = policies[number]
        kept = tuple(statement for statement in found.statements if statement is not gone)
        return [*policies[:number], replace(found, statements=kept), *policies[number + 1 :]]

    before = decide(asked, user=user, resource=resource, owned=owned)
    after = decide(
        asked,
        user=without(user) if kind == "user" else user,
        resource=without(resource) if kind == "resource" else resource,
        owned=owned,
    )
    assert before.is_allowed or not after.is_allowed


@pytest.mark.fuzz
@given(_conditions, st.sampled_from([{}, {"ses:fromaddress": []}]))
def test_an_absent_key_follows_the_rules_of_if_exists_and_null(condition, context):
    absent = replace(condition, key="ses:fromaddress")
    found = holds(absent, context, variables=True)
    if absent.operator == NULL:
        assert found is any(value.lower() == "true" for value in absent.values)
    elif absent.if_exists or absent.quantifier == "ForAllValues":
        assert found
    else:
        negated = "Not" in absent.operator
        assert found is (negated and absent.quantifier != "ForAnyValue")


@pytest.mark.fuzz
@given(_policies, _requests, st.randoms())
def test_the_order_means_nothing(policies, asked, random):
    statements = [statement for found in policies for statement in found.statements]
    random.shuffle(statements)
    mixed = Policy("2012-10-17", tuple(statements))
    assert evaluate(policies, asked).type is evaluate([mixed], asked).type
