"""Evaluate policies for a request.

Theory of operation. A statement matches a request when each of its elements does: the principal,
the action, the resource, and every condition. Statements are independent of each other, and the
order of statements and policies is irrelevant:

1. a Deny matches: explicit deny;
2. else, an Allow matches: allowed;
3. else: implicit deny.

`decide` combines two kinds of policies: those of the resource (sending authorization, of the
identity's account) and those of the user (of the caller's account; None for a user who is not
restricted by any, as an account's root is).

| who owns the identity | allowed when nothing denies and                                    |
| --------------------- | ------------------------------------------------------------------ |
| the caller's account  | the user is not restricted, or either kind allows                  |
| another account       | the resource's allow, and the user is not restricted, or theirs do |

Source: IAM User Guide, "Policy evaluation logic".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from sendback.authz.conditions import holds
from sendback.authz.patterns import Context, matches, matches_text, read_pattern
from sendback.authz.policy import Effect, Policy, Principal, Statement


@dataclass(frozen=True, slots=True)
class Requester:
    """The requesting principal: a user of an account, by ARN, or a service, by host name."""

    account_id: str
    arn: str
    service: str = ""


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """An action such as `ses:SendBounce` on an ARN; the context has keys in lower case."""

    requester: Requester
    action: str
    resource: str
    context: Context


class DecisionType(Enum):
    """The result of an evaluation, in the terms of the IAM User Guide."""

    ALLOWED = auto()
    EXPLICIT_DENY = auto()
    IMPLICIT_DENY = auto()  # no statement matches


@dataclass(frozen=True, slots=True)
class Decision:
    """A result, with the policy and the statement that decided it, if any."""

    type: DecisionType
    policy: Policy | None = None
    statement: Statement | None = None

    @property
    def is_allowed(self) -> bool:
        return self.type is DecisionType.ALLOWED

    @property
    def decided_by(self) -> str:
        """`policy name, statement`; "" when no statement decided."""
        if self.policy is None or self.statement is None:
            return ""
        return f"{self.policy.name or 'policy'}, {self.statement.label}"


_IMPLICIT_DENY = Decision(DecisionType.IMPLICIT_DENY)
_UNRESTRICTED = Decision(DecisionType.ALLOWED)


def evaluate(policies: Iterable[Policy], request: AccessRequest) -> Decision:
    """Return the decision of these policies alone."""
    allowed: Decision | None = None
    for policy in policies:
        for statement in policy.statements:
            if mismatch(policy, statement, request) is not None:
                continue
            if statement.effect is Effect.DENY:
                return Decision(DecisionType.EXPLICIT_DENY, policy, statement)
            allowed = allowed or Decision(DecisionType.ALLOWED, policy, statement)
    return allowed or _IMPLICIT_DENY


def decide(
    request: AccessRequest,
    *,
    user: Sequence[Policy] | None,
    resource: Sequence[Policy],
    owned: bool,
) -> Decision:
    """Return the decision of the user's and the resource's policies together (see the table above).

    `user` is None for an unrestricted user. `owned`: the requester's account owns the resource.
    """
    of_resource = evaluate(resource, request)
    of_user = _UNRESTRICTED if user is None else evaluate(user, request)
    for decision in (of_resource, of_user):
        if decision.type is DecisionType.EXPLICIT_DENY:
            return decision
    if owned:
        return of_user if of_user.is_allowed else of_resource
    return of_resource if of_user.is_allowed else of_user


def mismatch(policy: Policy, statement: Statement, request: AccessRequest) -> str | None:
    """Return the first element of the statement that does not match the request, or None."""
    if not _is_principal(statement, request.requester):
        return "Principal"
    if not _is_action(statement, request.action):
        return "Action"
    if not _is_resource(policy, statement, request):
        return "Resource"
    for condition in statement.conditions:
        if not holds(condition, request.context, variables=policy.has_variables):
            return f"Condition {condition}"
    return None


def _is_principal(statement: Statement, requester: Requester) -> bool:
    if statement.not_principals:
        return not any(_names(entry, requester) for entry in statement.not_principals)
    if statement.principals:
        return any(_names(entry, requester) for entry in statement.principals)
    return True  # a user's policy: the user is the principal


def _names(principal: Principal, requester: Requester) -> bool:
    if principal.kind == "Service":
        return principal.value == requester.service
    if requester.service:
        return principal.value == "*"
    account = requester.account_id
    return principal.value in {"*", account, f"arn:aws:iam::{account}:root", requester.arn}


def _is_action(statement: Statement, action: str) -> bool:
    """Whether the action matches, case-insensitively."""
    name = action.lower()
    if statement.not_actions:
        return not any(matches_text(entry.lower(), name) for entry in statement.not_actions)
    return any(matches_text(entry.lower(), name) for entry in statement.actions)


def _is_resource(policy: Policy, statement: Statement, request: AccessRequest) -> bool:
    def fits(entry: str) -> bool:
        pattern = read_pattern(entry, request.context, variables=policy.has_variables)
        return pattern is not None and matches(pattern, request.resource)

    if statement.not_resources:
        return not any(map(fits, statement.not_resources))
    return any(map(fits, statement.resources))
