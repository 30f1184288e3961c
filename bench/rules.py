"""Rules: what it costs to evaluate 200 of them, and what a rule-driven bounce adds to a mail.

Side by side in one run: the engine and the same question asked rule by rule (what a loop over the
documentation's words would do).
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from tests.partners.clients import ses
from tests.partners.sendback import Sendback

from bench.common import ROUNDS, row, sendback, smtp_source
from sendback.mail.address import Address, parse_address
from sendback.receipt.matching import CompiledRules, compile_rules, conditions_of
from sendback.receipt.model import AddHeaderAction, Rule, Rules
from sendback.receipt.plan import StepOutcome, StepState, make_plan, progress

RULES, CONDITIONS, RECIPIENTS = 200, 100, 50
MAILS = 2_000


def main() -> None:
    print("Rules")
    rules = tuple(_rule(number) for number in range(RULES))
    recipients = [parse_address(f"user{number}@example.com") for number in range(RECIPIENTS)]
    compiled = compile_rules(rules)
    engine = _microseconds(lambda: make_plan(compiled, recipients), 200)
    naive = _microseconds(lambda: _naive(rules, recipients), 3)
    row("200 rules x 100 recipients, mail of 50", engine, "us")
    row("the same, rule by rule", naive, "us")
    ratio = statistics.median(naive) / statistics.median(engine)
    print(f"  ratio {ratio:,.0f}")
    row("compiling the 200 rules, once a version", _microseconds(_compile(rules), 5), "us")
    row(
        "walking the 20 that match to the end",
        _microseconds(lambda: _walk(compiled, recipients), 3),
        "us",
    )
    _bounces()


def _bounces() -> None:
    """Mails a second with no rule set, and with one whose rule bounces every mail."""
    plain, ruled = [], []
    with sendback() as server:
        client = ses(server.endpoint)
        for number in range(ROUNDS):
            client.set_active_receipt_rule_set()
            time.sleep(1.1)  # a server follows within a second
            plain.append(smtp_source(server.smtp_port, MAILS, to="bob@example.com"))
            if number == 0:
                _create(client)
            client.set_active_receipt_rule_set(RuleSetName="main")
            time.sleep(1.1)
            ruled.append(_until_bounced(server, client))
    row("5 KB mails received, no rules", plain, "/s")
    row("received, and bounced by a rule", ruled, "/s")


def _create(client: Any) -> None:
    client.create_receipt_rule_set(RuleSetName="main")
    bounce = {"SmtpReplyCode": "550", "Message": "No", "Sender": "m@example.com"}
    rule = {"Name": "all", "Enabled": True, "Actions": [{"BounceAction": bounce}]}
    client.create_receipt_rule(RuleSetName="main", Rule=rule)


def _until_bounced(server: Sendback, client: Any) -> float:
    before = client.get_send_quota()["SentLast24Hours"]
    start = time.perf_counter()
    smtp_source(server.smtp_port, MAILS, to="bob@example.com")
    while client.get_send_quota()["SentLast24Hours"] < before + MAILS:
        time.sleep(0.2)  # asking costs too
    return MAILS / (time.perf_counter() - start)


def _rule(number: int) -> Rule:
    """Half of the conditions are addresses, half domains; one in ten rules matches."""
    recipients = [f"user{number * CONDITIONS + i}@example.org" for i in range(CONDITIONS // 2)]
    recipients += [f"domain{number * CONDITIONS + i}.example" for i in range(CONDITIONS // 2)]
    if number % 10 == 0:
        recipients[0] = "example.com"
    actions = (AddHeaderAction("X-A", "b"),)
    return Rule(f"rule{number}", enabled=True, recipients=tuple(recipients), actions=actions)


def _naive(rules: Rules, recipients: list[Address]) -> list[tuple[Rule, list[Address]]]:
    found = []
    for rule in rules:
        matched = [r for r in recipients if set(conditions_of(r)) & set(rule.recipients)]
        if matched:
            found.append((rule, matched))
    return found


def _compile(rules: Rules) -> Callable[[], CompiledRules]:
    return lambda: compile_rules(rules)


def _walk(compiled: CompiledRules, recipients: list[Address]) -> None:
    plan = make_plan(compiled, recipients)
    states: dict[tuple[int, int], StepState] = {}
    while (step := progress(plan, states).next) is not None:
        states[step] = StepState(StepOutcome.DONE)


def _microseconds(work: Callable[[], object], times: int) -> list[float]:
    work()
    measured = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        measured.append((time.perf_counter() - start) * 1_000_000)
    return measured


if __name__ == "__main__":
    main()
