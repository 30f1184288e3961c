"""The engine: its table of effects, and a slow model that it must agree with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.address import parse_address
from sendback.receipt.matching import compile_rules
from sendback.receipt.model import (
    AddHeaderAction,
    BounceAction,
    Disposition,
    InvocationType,
    LambdaAction,
    Rule,
    S3Action,
    SNSAction,
    StopAction,
    TlsPolicy,
)
from sendback.receipt.plan import (
    Notice,
    StepOutcome,
    StepState,
    headers_before,
    make_plan,
    progress,
    step_task,
)

TOPIC = "arn:aws:sns:us-east-1:000000000000:topic"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
BOB = parse_address("bob@example.com")

HEADER = AddHeaderAction("X-A", "b")
STORE = S3Action("mail")
ASK = LambdaAction(ARN, InvocationType.REQUEST_RESPONSE)
CALL = LambdaAction(ARN, InvocationType.EVENT)
STOP = StopAction()

DONE = StepState(StepOutcome.DONE)
RETRY = StepState(StepOutcome.RETRY)
FAILED = StepState(StepOutcome.FAILED)
STOP_RULE = StepState(StepOutcome.DONE, Disposition.STOP_RULE)
STOP_RULE_SET = StepState(StepOutcome.DONE, Disposition.STOP_RULE_SET)


def plan_of(*rules):
    named = tuple(
        Rule(f"r{number}", enabled=True, actions=actions) for number, actions in enumerate(rules)
    )
    return make_plan(compile_rules(named), [BOB])


def walk(plan, answers):
    """All steps in the order in which they are taken; `answers` has states other than done."""
    states = {}
    while True:
        step = progress(plan, states).next
        if step is None:
            return list(states), progress(plan, states).retries
        states[step] = answers.get(step, DONE)


@pytest.mark.parametrize(
    ("rules", "answers", "taken", "retries"),
    [
        # Everything done: in the order of rules and actions.
        (([HEADER, STORE], [CALL]), {}, [(0, 0), (0, 1), (1, 0)], ()),
        # A stop action ends the set.
        (([HEADER, STOP], [CALL]), {}, [(0, 0), (0, 1)], ()),
        # A disposition ends its rule, or the set.
        (([ASK, STORE], [CALL]), {(0, 0): STOP_RULE}, [(0, 0), (1, 0)], ()),
        (([ASK, STORE], [CALL]), {(0, 0): STOP_RULE_SET}, [(0, 0)], ()),
        (([ASK, STORE], [CALL]), {}, [(0, 0), (0, 1), (1, 0)], ()),
        # What failed for good lets the rest go on.
        (([STORE, HEADER], [CALL]), {(0, 0): FAILED}, [(0, 0), (0, 1), (1, 0)], ()),
        (([ASK, STORE], [CALL]), {(0, 0): FAILED}, [(0, 0), (0, 1), (1, 0)], ()),
        # What is to be tried again lets the rest go on, unless its answer decides the way.
        (([STORE, HEADER], [CALL]), {(0, 0): RETRY}, [(0, 0), (0, 1), (1, 0)], ((0, 0),)),
        (([CALL, HEADER], []), {(0, 0): RETRY}, [(0, 0), (0, 1)], ((0, 0),)),
        (([HEADER, ASK, STORE], [CALL]), {(0, 1): RETRY}, [(0, 0), (0, 1)], ((0, 1),)),
        # A notice comes behind its action once that is done, and before the stop takes effect.
        (([S3Action("m", topic_arn=TOPIC)], []), {}, [(0, 0), (0, 1)], ()),
        (([S3Action("m", topic_arn=TOPIC)], []), {(0, 0): FAILED}, [(0, 0)], ()),
        (([S3Action("m", topic_arn=TOPIC)], []), {(0, 0): RETRY}, [(0, 0)], ((0, 0),)),
        (([StopAction(TOPIC)], [CALL]), {}, [(0, 0), (0, 1)], ()),
        (([StopAction(TOPIC)], [CALL]), {(0, 1): FAILED}, [(0, 0), (0, 1)], ()),
        # An SNS action's topic is the action.
        (([SNSAction(TOPIC), HEADER],), {}, [(0, 0), (0, 1)], ()),
        (([],), {}, [], ()),
    ],
)  # fmt: skip
def test_the_table_of_effects(rules, answers, taken, retries):
    assert walk(plan_of(*map(tuple, rules)), answers) == (taken, retries)


def test_the_notice_of_a_function_that_ends_the_set():
    ask = LambdaAction(ARN, InvocationType.REQUEST_RESPONSE, TOPIC)
    plan = plan_of((ask, STORE), (CALL,))
    assert walk(plan, {(0, 0): STOP_RULE_SET}) == ([(0, 0), (0, 1)], ())
    assert isinstance(step_task(plan, (0, 1))[1], Notice)


def test_headers_are_for_what_comes_later():
    plan = plan_of((STORE, HEADER, STORE), (HEADER, CALL))
    states = dict.fromkeys(walk(plan, {})[0], DONE)
    assert headers_before(plan, states, (0, 0)) == []
    assert headers_before(plan, states, (0, 1)) == []
    assert headers_before(plan, states, (0, 2)) == [HEADER]
    assert headers_before(plan, states, (1, 1)) == [HEADER, HEADER]


def test_a_step_that_worked_at_last_frees_what_waited():
    plan = plan_of(
        (ASK, STORE),
    )
    assert progress(plan, {(0, 0): RETRY}).next is None
    assert progress(plan, {(0, 0): DONE}).next == (0, 1)


# --- against a model -------------------------------------------------------------------------

LOCALS = ("ann", "bob", "Bob", "ann+tag", "bob+x+y", '"q"')
DOMAINS = ("example.com", "EXAMPLE.com", "a.example.com", "b.a.example.com", "example.org", "com")
CONDITIONS = st.one_of(
    st.builds("{}@{}".format, st.sampled_from(LOCALS), st.sampled_from(DOMAINS)),
    st.sampled_from(DOMAINS),
    st.sampled_from(DOMAINS).map(".{}".format),
)
ACTIONS = st.sampled_from(
    (
        HEADER,
        STORE,
        ASK,
        CALL,
        STOP,
        SNSAction(TOPIC),
        StopAction(TOPIC),
        LambdaAction(ARN, InvocationType.REQUEST_RESPONSE, TOPIC),
        S3Action("mail", topic_arn=TOPIC),
        BounceAction("550", "no", "mailer-daemon@example.com", topic_arn=TOPIC),
    )
)
RULES = st.lists(
    st.builds(
        Rule,
        name=st.just("rule"),
        enabled=st.sampled_from((True, True, True, False)),
        tls_policy=st.sampled_from(TlsPolicy),
        recipients=st.lists(CONDITIONS, max_size=5).map(tuple),
        actions=st.lists(ACTIONS, max_size=4).map(tuple),
    ),
    max_size=8,
).map(tuple)
RECIPIENTS = st.lists(
    st.builds("{}@{}".format, st.sampled_from(LOCALS), st.sampled_from(DOMAINS)).map(parse_address),
    max_size=6,
    unique_by=lambda address: address.key,
)


def model_matches(condition, recipient):
    """As SES's documentation says it, read by a child."""
    text = f"{recipient.local}@{recipient.domain.lower()}"
    local, domain = text.rsplit("@", 1)
    if "@" in condition:
        wanted_local, wanted_domain = condition.rsplit("@", 1)
        if wanted_domain.lower() != domain:
            return False
        plain = local.split("+")[0] if not local.startswith('"') else local
        return wanted_local in {local, plain}
    if condition.startswith("."):
        return domain.endswith(condition.lower()) and domain != condition.lower()[1:]
    return domain == condition.lower()


def model_of(rules, recipients):
    """(rule number, recipients) of each rule that matches."""
    found = []
    for number, rule in enumerate(rules):
        if rule.enabled:
            matched = tuple(
                recipient
                for recipient in recipients
                if not rule.recipients
                or any(model_matches(condition, recipient) for condition in rule.recipients)
            )
            if matched:
                found.append((number, matched))
    return found


def model_walk(rules, matched, states):
    """What is done, one action after the other, written as a recipe."""
    done = []
    for number, _ in matched:
        position = -1
        stop_rule = stop_set = False
        for action in rules[number].actions:
            position += 1
            step = (number, position)
            state = states(step)
            done.append(step)
            asks = isinstance(action, LambdaAction) and action.invocation_type.value == (
                "RequestResponse"
            )
            if state.outcome is StepOutcome.RETRY and asks:
                return done
            stop_set = isinstance(action, StopAction) or state.disposition.value == "STOP_RULE_SET"
            stop_rule = state.disposition.value == "STOP_RULE"
            if action.topic_arn and not isinstance(action, SNSAction):
                position += 1
                if state.outcome is StepOutcome.DONE:
                    done.append((number, position))
            if stop_rule or stop_set:
                break
        if stop_set:
            return done
    return done


STATES = st.lists(
    st.sampled_from((DONE, DONE, DONE, DONE, RETRY, FAILED, STOP_RULE, STOP_RULE_SET)),
    min_size=7,
    max_size=7,
)


def state_of(answers, plan):
    """Only a function's answer has a disposition."""

    def state(step):
        answer = answers[(step[0] * 3 + step[1]) % len(answers)]
        _, task = step_task(plan, step)
        if isinstance(task, LambdaAction) and task.invocation_type.value == "RequestResponse":
            return answer
        return StepState(answer.outcome)

    return state


@pytest.mark.fuzz
@given(RULES, RECIPIENTS, STATES)
def test_the_engine_agrees_with_the_model(rules, recipients, answers):
    compiled = compile_rules(rules)
    plan = make_plan(compiled, recipients)
    matched = model_of(rules, recipients)
    assert [(planned.number, planned.recipients) for planned in plan] == matched
    for recipient in recipients:
        expected = any(
            rules[number].tls_policy is TlsPolicy.REQUIRE and recipient in own
            for number, own in matched
        )
        assert compiled.requires_tls(recipient) is expected
    state = state_of(answers, plan)
    states = {}
    while (step := progress(plan, states).next) is not None:
        states[step] = state(step)
    assert list(states) == model_walk(rules, matched, state)
    waiting = tuple(s for s in states if states[s].outcome is StepOutcome.RETRY)
    assert progress(plan, states).retries == waiting


@given(RULES)
def test_rules_come_back_from_json(rules):
    from sendback.receipt.shapes import rules_from_json, rules_to_json

    assert rules_from_json(rules_to_json(rules)) == rules
