"""Simulates the decision about a SendBounce, with the statement that decides; no side effect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sendback.authz.conditions import moment
from sendback.authz.evaluate import AccessRequest, DecisionType, mismatch
from sendback.authz.policy import PolicyKind
from sendback.aws.arn import IdentityArn
from sendback.errors import InvalidInputError
from sendback.mail.address import AddressError, identity_name, parse_mailbox
from sendback.mail.covering import covering_names
from sendback.service.access.authorization import (
    SEND_BOUNCE,
    Access,
    Authorization,
    read_policies,
    restrictions,
)
from sendback.service.access.caller import Caller, CallOrigin
from sendback.store.access.users import NamedPolicy
from sendback.store.engine.store import Store
from sendback.store.identities.policies import FindPoliciesOfUse


class QuestionError(InvalidInputError):
    """A simulation that cannot be run; `str` says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One statement: `of` which policy; `fails` is the element that does not match, if one does."""

    of: str
    statement: str
    effect: str
    fails: str | None


@dataclass(frozen=True, slots=True)
class Simulation:
    """The result of a simulation."""

    permitted: bool
    because: str
    caller: str
    identity: str
    context: Mapping[str, Sequence[str]]
    steps: Sequence[Step] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """A simulated SendBounce: `sender` is its BounceSender, `user` of `account_id` the caller.

    `owner` is the account of the identity, `at` an ISO 8601 date, None for now.
    """

    account_id: str
    user: str
    sender: str
    owner: str | None = None
    identity: str | None = None
    source_ip: str = ""
    at: str | None = None
    secure: bool = False


async def simulate_bounce(
    store: Store, authorization: Authorization, region: str, asked: Question
) -> Simulation:
    """Raises `QuestionError`, `StoreUnavailableError`."""
    try:
        address = parse_mailbox(asked.sender).address
    except AddressError as error:
        raise QuestionError(f"the sender: {error}") from None
    whose = asked.owner or asked.account_id
    names = (identity_name(asked.identity),) if asked.identity else covering_names(address)
    found = await store.read(FindPoliciesOfUse(asked.account_id, asked.user, whose, names))
    key = found.identity
    caller = Caller(asked.account_id, asked.user, "", restrictions(asked.user, found.of_user))
    origin = CallOrigin(asked.source_ip, "", asked.secure)
    parameters = {"BounceSender": asked.sender}
    access = authorization.access(caller, origin, SEND_BOUNCE.partition(":")[2], parameters)
    access = replace(access, context={**access.context, **_moved(asked.at)})
    if key is None:
        text = f"account {whose} has no verified identity that covers {address}"
        return Simulation(False, text, caller.arn, "", access.context)
    if key[1] not in covering_names(address):
        text = f"{key[1]} does not cover {address}"
        return Simulation(False, text, caller.arn, "", access.context)
    return _decide(authorization, access, IdentityArn(region, *key), found.of_identity)


def _moved(at: str | None) -> dict[str, list[str]]:
    if at is None:
        return {}
    seconds = moment(at)
    if seconds is None:
        raise QuestionError(f"{at!r} is not a date such as 2026-12-31T00:00:00Z")
    return {"aws:currenttime": [at], "aws:epochtime": [str(int(seconds))]}


def _decide(
    authorization: Authorization,
    access: Access,
    identity: IdentityArn,
    policies: Sequence[NamedPolicy],
) -> Simulation:
    decision = authorization.decide_use(access, identity, policies)
    caller = access.caller
    if decision.decided_by:
        verb = "denies" if decision.type is DecisionType.EXPLICIT_DENY else "allows"
        because = f"{decision.decided_by}: {verb}"
    elif decision.is_allowed:
        because = "the account owns the identity, and no policy restricts the user"
    else:
        because = "no statement allows it"
    request = AccessRequest(caller.requester, SEND_BOUNCE, str(identity), access.context)
    attached = [
        (f"identity {identity.identity}", read_policies(policies, PolicyKind.IDENTITY)),
        (f"user {caller.user_name}", caller.policies or ()),
    ]
    steps = [
        Step(
            f"{of}, {policy.name}",
            statement.label,
            statement.effect.value,
            mismatch(policy, statement, request),
        )
        for of, found in attached
        for policy in found
        for statement in policy.statements
    ]
    return Simulation(
        decision.is_allowed, because, caller.arn, str(identity), access.context, steps
    )
