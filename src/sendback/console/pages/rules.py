"""Rule sets: ordered lists of rules, a form for each rule, IP filters, export and import."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from sendback.aws.errors import SesError
from sendback.aws.model import operation_model
from sendback.aws.query import decode
from sendback.console.call import Page, PageCall, segment
from sendback.console.errors import PageError
from sendback.console.forms import Form
from sendback.console.snippets import snippets

_ACTIONS = "Rule.Actions.member"
_RECIPIENTS = "Rule.Recipients.member"
_MEMBER = re.compile(r"(Rule\.(?:Actions|Recipients)\.member)\.(\d{1,3})(\..+)?")
_MAX_PAGES = 50

# --- rule sets -----------------------------------------------------------------------------------


async def list_rule_sets(call: PageCall) -> Response:
    """Show the rule sets."""
    return await _rule_sets(call, Form())


async def change_rule_sets(call: PageCall) -> Response:
    """Create, copy, delete or activate a rule set."""
    name, what = call.form.text("RuleSetName"), call.form.text("do")
    calls: dict[str, tuple[str, list[tuple[str, str]], str]] = {
        "create": ("CreateReceiptRuleSet", [("RuleSetName", name)], f"Rule set {name} is created."),
        "clone": (
            "CloneReceiptRuleSet",
            [
                ("RuleSetName", name),
                ("OriginalRuleSetName", call.form.text("OriginalRuleSetName")),
            ],
            f"Rule set {name} is created as a copy.",
        ),
        "delete": ("DeleteReceiptRuleSet", [("RuleSetName", name)], f"Rule set {name} is deleted."),
        "activate": (
            "SetActiveReceiptRuleSet",
            [("RuleSetName", name)],
            f"Rule set {name} is active.",
        ),
        "deactivate": ("SetActiveReceiptRuleSet", [], "No rule set is active."),
    }
    if what not in calls:
        raise _no_such_change()
    action, pairs, note = calls[what]
    try:
        await call.ses(action, pairs)
    except SesError as error:
        return await _rule_sets(call, call.form.with_ses_error(error), error.http_status)
    return call.go("/rules", note=note)


async def _rule_sets(call: PageCall, form: Form, status: int = 200) -> Response:
    found: list[Mapping[str, Any]] = []
    token: str | None = None
    for _ in range(_MAX_PAGES):
        page = await call.ses("ListReceiptRuleSets", [("NextToken", token)] if token else [])
        found += page["RuleSets"]
        token = page.get("NextToken")
        if token is None:
            break
    active = await call.services.rule_sets.describe_active(call.account_id)
    return call.page(
        "rules/sets.html",
        status,
        sets=found,
        active=active.name if active else None,
        form=form,
        without=call.services.settings.receive_without_rules,
    )


# --- one rule set --------------------------------------------------------------------------------


async def show_rule_set(call: PageCall) -> Response:
    """Show the rules of a rule set in their order."""
    return await _rule_set(call, "")


async def change_rule_set(call: PageCall) -> Response:
    """Move or delete a rule."""
    name, what = call.path["set"], call.form.text("do")
    rule = call.form.text("RuleName")
    rules = [entry["Name"] for entry in await _rules(call, name)]
    try:
        if what == "delete":
            await call.ses("DeleteReceiptRule", [("RuleSetName", name), ("RuleName", rule)])
            note = f"Rule {rule} of {name} is deleted."
        elif what in {"up", "down", "order"}:
            order = call.form.text("order").split("\n") if what == "order" else None
            order = [entry.strip() for entry in order] if order else _moved(rules, rule, what)
            pairs = [(f"RuleNames.member.{at}", entry) for at, entry in enumerate(order, 1)]
            await call.ses("ReorderReceiptRuleSet", [("RuleSetName", name), *pairs])
            note = f"The rules of {name} have another order."
        else:
            raise _no_such_change()
    except SesError as error:
        return await _rule_set(call, str(error), error.http_status)
    return call.go(f"/rules/sets/{segment(name)}", note=note)


def _moved(rules: Sequence[str], rule: str, what: str) -> list[str]:
    order = list(rules)
    if rule in order:
        at = order.index(rule)
        to = max(at - 1, 0) if what == "up" else at + 1
        order.insert(to, order.pop(at))
    return order


async def _rules(call: PageCall, name: str) -> Sequence[Mapping[str, Any]]:
    found = await call.ses("DescribeReceiptRuleSet", [("RuleSetName", name)])
    rules: Sequence[Mapping[str, Any]] = found["Rules"]
    return rules


async def _rule_set(call: PageCall, problem: str, status: int = 200) -> Response:
    name = call.path["set"]
    active = await call.services.rule_sets.describe_active(call.account_id)
    return call.page(
        "rules/set.html",
        status,
        name=name,
        rules=[{**rule, "words": _words(rule)} for rule in await _rules(call, name)],
        is_active=active is not None and active.name == name,
        problem=problem,
    )


def _words(rule: Mapping[str, Any]) -> list[str]:
    """Return the actions of a rule in words."""
    found = []
    for action in rule["Actions"]:
        kind, members = next(iter(action.items()))
        what = next((str(members[name]) for name in _TELLING if members.get(name)), "")
        found.append(f"{kind.removesuffix('Action')} {what}".strip())
    return found


_TELLING = (
    "BucketName",
    "FunctionArn",
    "Message",
    "HeaderName",
    "OrganizationArn",
    "InstanceARN",
    "TopicArn",
)


# --- a rule --------------------------------------------------------------------------------------


async def edit_rule(call: PageCall) -> Response:
    """Show the form of a rule, or of a new one."""
    name = call.text("rule")
    if not name:
        pairs = [("Rule.Enabled", "true"), (f"{_RECIPIENTS}.1", "")]
        return await _rule_form(call, Form(tuple(pairs)), is_new=True)
    found = await call.ses(
        "DescribeReceiptRule", [("RuleSetName", call.path["set"]), ("RuleName", name)]
    )
    return await _rule_form(call, Form(tuple(_flat("Rule", found["Rule"]))), is_new=False)


async def save_rule(call: PageCall) -> Response:
    """Write a rule, or show its form with another number of actions or recipients."""
    form, is_new = Form(tuple(_edited(call.form))), call.form.text("is_new") == "true"
    if call.form.text("do") != "save":
        return await _rule_form(call, form, is_new=is_new)
    action = "CreateReceiptRule" if is_new else "UpdateReceiptRule"
    try:
        await call.ses(action, _parameters(call, form))
    except SesError as error:
        changed = form.with_ses_error(error)
        return await _rule_form(call, changed, is_new=is_new, status=error.http_status)
    name = form.text("Rule.Name")
    note = f"Rule {name} of {call.path['set']} is {'created' if is_new else 'changed'}."
    return call.go(f"/rules/sets/{segment(call.path['set'])}", note=note)


async def _rule_form(call: PageCall, form: Form, *, is_new: bool, status: int = 200) -> Response:
    action = "CreateReceiptRule" if is_new else "UpdateReceiptRule"
    rules = await _rules(call, call.path["set"])
    texts = None
    try:
        given = decode(operation_model(action), [("Action", action), *_parameters(call, form)])
        settings = call.services.settings
        texts = snippets(action, given, f"http://{call.services.http}", settings.region)
    except SesError:  # it is not complete yet
        pass
    actions = _members(form, _ACTIONS)
    recipients = _members(form, _RECIPIENTS)
    return call.page(
        "rules/rule.html",
        status,
        form=form,
        name=call.path["set"],
        is_new=is_new,
        places=[("", "at the beginning"), *((r["Name"], f"after {r['Name']}") for r in rules)],
        actions=[_action_fields(form, f"{_ACTIONS}.{number}") for number in actions],
        next_action=f"{_ACTIONS}.{max(actions, default=0) + 1}",
        recipients=[f"{_RECIPIENTS}.{number}" for number in recipients],
        next_recipient=f"{_RECIPIENTS}.{max(recipients, default=0) + 1}",
        kinds=sorted(_action_shapes()),
        snippets=texts,
    )


def _action_shapes() -> Mapping[str, Any]:
    shape = operation_model("CreateReceiptRule").input_shape
    if shape is None:
        raise TypeError("CreateReceiptRule has no input")
    members: Mapping[str, Any] = shape.members["Rule"].members["Actions"].member.members
    return members


def _action_fields(form: Form, path: str) -> dict[str, Any]:
    """Return what the form shows of an action: its type and members."""
    prefix = f"{path}."
    names = [name for name in form.names() if name.startswith(prefix)]
    kind = names[0][len(prefix) :].partition(".")[0] if names else "StopAction"
    shapes = _action_shapes()
    shape = shapes.get(kind)
    if shape is None:
        raise PageError(400, "There is no such action", f"Actions are {', '.join(shapes)}.")
    members = [
        {
            "name": f"{prefix}{kind}.{name}",
            "label": name,
            "options": list(getattr(member, "enum", ()) or ()),
            "required": name in shape.required_members,
        }
        for name, member in shape.members.items()
    ]
    members.sort(key=lambda member: not member["required"])
    return {"path": path, "kind": kind, "members": members}


def _parameters(call: PageCall, form: Form) -> list[tuple[str, str]]:
    """Return the parameters of the call; lists are numbered without gaps."""
    found = [("RuleSetName", call.path["set"])]
    numbers = {
        path: {number: at for at, number in enumerate(_members(form, path), 1)}
        for path in (_ACTIONS, _RECIPIENTS)
    }
    # An empty recipient is none.
    filled = [number for number in numbers[_RECIPIENTS] if form.text(f"{_RECIPIENTS}.{number}")]
    numbers[_RECIPIENTS] = {number: at for at, number in enumerate(filled, 1)}
    for name, value in form.filled():
        match = _MEMBER.fullmatch(name)
        if match is not None:
            at = numbers[match[1]].get(int(match[2]))
            if at is not None:
                found.append((f"{match[1]}.{at}{match[3] or ''}", value))
        elif name == "After" or name.startswith("Rule."):
            found.append((name, value))
    return found


def _edited(form: Form) -> list[tuple[str, str]]:
    """Return the fields after the button: an action or a recipient added, moved or left out."""
    what, _, where = form.text("do").partition(" ")
    pairs = [pair for pair in form.pairs if pair[0] not in {"do", "csrf", "kind", "is_new"}]
    if what == "drop":
        pairs = [(n, v) for n, v in pairs if n != where and not n.startswith(f"{where}.")]
    elif what == "add" and where.startswith(_RECIPIENTS):
        pairs.append((where, ""))
    elif what == "add":
        kind = form.text("kind")
        shape = _action_shapes().get(kind)
        if shape is None:
            raise _no_such_change()
        pairs.append((f"{where}.{kind}.{next(iter(shape.members))}", ""))
    elif what == "raise":
        pairs = _swapped(pairs, where, _before(form, where))
    return pairs


def _before(form: Form, path: str) -> str:
    numbers = _members(form, _ACTIONS)
    number = int(path.rpartition(".")[2])
    at = numbers.index(number) if number in numbers else 0
    return f"{_ACTIONS}.{numbers[max(at - 1, 0)]}" if numbers else path


def _swapped(pairs: Sequence[tuple[str, str]], one: str, two: str) -> list[tuple[str, str]]:
    found = []
    for name, value in pairs:
        other = name
        if name.startswith(f"{one}."):
            other = two + name[len(one) :]
        elif name.startswith(f"{two}."):
            other = one + name[len(two) :]
        found.append((other, value))
    return found


def _members(form: Form, path: str) -> list[int]:
    found = {
        int(match[2])
        for name in form.names()
        if (match := _MEMBER.fullmatch(name)) is not None and match[1] == path
    }
    return sorted(found)


def _flat(path: str, value: Any) -> list[tuple[str, str]]:
    """Return a value of the model as the parameters of a request."""
    if isinstance(value, Mapping):
        return [pair for name, member in value.items() for pair in _flat(f"{path}.{name}", member)]
    if isinstance(value, list):
        return [
            pair for at, item in enumerate(value, 1) for pair in _flat(f"{path}.member.{at}", item)
        ]
    if isinstance(value, bool):
        return [(path, "true")] if value else []
    return [(path, str(value))]


# --- IP filters ----------------------------------------------------------------------------------


async def list_filters(call: PageCall) -> Response:
    """Show the IP filters."""
    return await _filters(call, Form())


async def change_filters(call: PageCall) -> Response:
    """Add or delete an IP filter."""
    form = call.form
    if form.text("do") == "delete":
        name = form.text("FilterName")
        await call.ses("DeleteReceiptFilter", [("FilterName", name)])
        return call.go("/rules/filters", note=f"Filter {name} is deleted.")
    pairs = [pair for pair in form.filled() if pair[0].startswith("Filter.")]
    try:
        await call.ses("CreateReceiptFilter", pairs)
    except SesError as error:
        return await _filters(call, form.with_ses_error(error), error.http_status)
    return call.go("/rules/filters", note=f"Filter {form.text('Filter.Name')} is created.")


async def _filters(call: PageCall, form: Form, status: int = 200) -> Response:
    found = await call.ses("ListReceiptFilters")
    return call.page("rules/filters.html", status, filters=found["Filters"], form=form)


def _no_such_change() -> PageError:
    return PageError(400, "There is no such change", "Use the buttons of the page.")


PAGES = (
    Page("GET", "/rules", list_rule_sets),
    Page("POST", "/rules", change_rule_sets),
    Page("GET", "/rules/filters", list_filters),
    Page("POST", "/rules/filters", change_filters),
    Page("GET", "/rules/sets/{set}", show_rule_set),
    Page("POST", "/rules/sets/{set}", change_rule_set),
    Page("GET", "/rules/sets/{set}/rule", edit_rule),
    Page("POST", "/rules/sets/{set}/rule", save_rule),
)
