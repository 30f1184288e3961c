"""Receipt rule sets and rules. SES API: the operations named …ReceiptRule and …ReceiptRuleSet.

A name is checked in three layers, as the live service does: first that it is present; then its
characters and length (one ValidationError with all other violations of the model); then its syntax
as a name.
"""

from collections.abc import Mapping
from typing import Any

from sendback.api.services import Request, Services
from sendback.receipt.constraints import check_name
from sendback.receipt.shapes import rule_to_shape
from sendback.service.rules.requests import active_rule_set_of, rule_of, rule_set_name_of
from sendback.store.rules.rule_sets import RuleSet

Output = Mapping[str, Any]


async def create_receipt_rule_set(request: Request, services: Services) -> Output:
    """SES API: CreateReceiptRuleSet."""
    await services.rule_sets.create(*_scope(request))
    return {}


async def clone_receipt_rule_set(request: Request, services: Services) -> Output:
    """SES API: CloneReceiptRuleSet."""
    original = request.input["OriginalRuleSetName"]
    account_id, name = _scope(request)
    check_name(original, "ruleSetName")
    await services.rule_sets.clone(account_id, name, original)
    return {}


async def delete_receipt_rule_set(request: Request, services: Services) -> Output:
    """SES API: DeleteReceiptRuleSet."""
    await services.rule_sets.delete(*_scope(request))
    return {}


async def describe_receipt_rule_set(request: Request, services: Services) -> Output:
    """SES API: DescribeReceiptRuleSet."""
    return _described(await services.rule_sets.describe(*_scope(request)))


async def describe_active_receipt_rule_set(request: Request, services: Services) -> Output:
    """SES API: DescribeActiveReceiptRuleSet. Empty when none is active."""
    found = await services.rule_sets.describe_active(request.caller.account_id)
    return {} if found is None else _described(found)


async def list_receipt_rule_sets(request: Request, services: Services) -> Output:
    """SES API: ListReceiptRuleSets."""
    page = await services.rule_sets.list(request.caller.account_id, request.input.get("NextToken"))
    sets = [{"Name": name, "CreatedTimestamp": made} for name, made in page.rule_sets]
    return {"RuleSets": sets, "NextToken": page.next_token}


async def set_active_receipt_rule_set(request: Request, services: Services) -> Output:
    """SES API: SetActiveReceiptRuleSet. Without a name, deactivates the active rule set."""
    name = active_rule_set_of(request.input)
    await services.rule_sets.activate(request.caller.account_id, name)
    return {}


async def reorder_receipt_rule_set(request: Request, services: Services) -> Output:
    """SES API: ReorderReceiptRuleSet."""
    await services.rule_sets.reorder(*_scope(request), request.input["RuleNames"])
    return {}


async def create_receipt_rule(request: Request, services: Services) -> Output:
    """SES API: CreateReceiptRule."""
    scope = _scope(request)
    rule = rule_of(request.input)
    await services.rule_sets.create_rule(*scope, rule, request.input.get("After"))
    return {}


async def update_receipt_rule(request: Request, services: Services) -> Output:
    """SES API: UpdateReceiptRule."""
    await services.rule_sets.update_rule(*_scope(request), rule_of(request.input))
    return {}


async def delete_receipt_rule(request: Request, services: Services) -> Output:
    """SES API: DeleteReceiptRule."""
    await services.rule_sets.delete_rule(*_scope(request), _rule_name(request))
    return {}


async def describe_receipt_rule(request: Request, services: Services) -> Output:
    """SES API: DescribeReceiptRule."""
    rule = await services.rule_sets.describe_rule(*_scope(request), _rule_name(request))
    return {"Rule": rule_to_shape(rule)}


async def set_receipt_rule_position(request: Request, services: Services) -> Output:
    """SES API: SetReceiptRulePosition."""
    scope, name = _scope(request), _rule_name(request)
    await services.rule_sets.move_rule(*scope, name, request.input.get("After"))
    return {}


def _scope(request: Request) -> tuple[str, str]:
    """Return the caller's account and the name of the rule set."""
    return request.caller.account_id, rule_set_name_of(request.input)


def _rule_name(request: Request) -> str:
    name: str = request.input["RuleName"]
    check_name(name, "ruleName")
    return name


def _described(found: RuleSet) -> dict[str, Any]:
    return {
        "Metadata": {"Name": found.name, "CreatedTimestamp": found.created_at},
        "Rules": [rule_to_shape(rule) for rule in found.rules],
    }


OPERATIONS = {
    "CloneReceiptRuleSet": clone_receipt_rule_set,
    "CreateReceiptRule": create_receipt_rule,
    "CreateReceiptRuleSet": create_receipt_rule_set,
    "DeleteReceiptRule": delete_receipt_rule,
    "DeleteReceiptRuleSet": delete_receipt_rule_set,
    "DescribeActiveReceiptRuleSet": describe_active_receipt_rule_set,
    "DescribeReceiptRule": describe_receipt_rule,
    "DescribeReceiptRuleSet": describe_receipt_rule_set,
    "ListReceiptRuleSets": list_receipt_rule_sets,
    "ReorderReceiptRuleSet": reorder_receipt_rule_set,
    "SetActiveReceiptRuleSet": set_active_receipt_rule_set,
    "SetReceiptRulePosition": set_receipt_rule_position,
    "UpdateReceiptRule": update_receipt_rule,
}
