"""Authorization: policies are evaluated here only.

Every call is checked by `check_call` before its operation is looked up. SendBounce uses identities,
so it is decided when these are known, by `decide_use`, which `bouncing` calls for each of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from sendback.authz.evaluate import AccessRequest, Decision, decide, evaluate
from sendback.authz.policy import Policy, PolicyKind, parse_policy
from sendback.aws.arn import ROOT_USER, IdentityArn, parse_identity_arn
from sendback.aws.errors import SesError, invalid_value
from sendback.aws.model import operation_model
from sendback.clock import Clock
from sendback.mail.address import AddressError, Mailbox, identity_name, parse_mailbox
from sendback.service.access.caller import Caller, CallOrigin, call_context
from sendback.store.access.users import NamedPolicy

SEND_BOUNCE = "ses:SendBounce"
# Operations that other accounts may be permitted to use: decided when the identity is known.
USES_IDENTITIES = frozenset({"SendBounce"})
# The members that name the identity of a call, and its sender.
_IDENTITY_MEMBERS = ("Identity", "EmailAddress", "Domain")
_SENDER_MEMBERS = ("BounceSender", "Source", "FromEmailAddress")
# These members are matched with conditions and resources, at a cost of their length. An identity
# has at most 320 characters, a display name some more; a text that was cut could bypass a Deny.
_MAX_MEMBER = 2048


@dataclass(frozen=True, slots=True)
class Access:
    """A caller with the condition keys of its call."""

    caller: Caller
    context: Mapping[str, list[str]]


class Authorization:
    """Evaluates policies."""

    def __init__(self, clock: Clock, region: str) -> None:
        self._clock = clock
        self._region = region

    def access(
        self, caller: Caller, origin: CallOrigin, action: str, parameters: Mapping[str, str]
    ) -> Access:
        """Return the access of a call; `parameters` are those that were sent.

        Raise `SesError`: InvalidParameterValue for a sender that is too long to be one.
        """
        context = dict(call_context(caller, origin, self._clock.now()))
        sender = _member_of(action, _SENDER_MEMBERS, parameters)
        return Access(caller, {**context, **sender_context(sender)} if sender else context)

    def check_call(self, access: Access, action: str, parameters: Mapping[str, str]) -> None:
        """Raises `SesError`: AccessDenied, when the caller's own policies do not allow the call.

        InvalidParameterValue, when it names an identity that is too long to be one.
        """
        policies = access.caller.policies
        if policies is None or action in USES_IDENTITIES:
            return
        request = AccessRequest(
            access.caller.requester,
            f"ses:{action}",
            self._resource(access.caller, _member_of(action, _IDENTITY_MEMBERS, parameters)),
            access.context,
        )
        if not evaluate(policies, request).is_allowed:
            raise SesError(
                "AccessDenied",
                f"User: {access.caller.arn} is not authorized to perform: ses:{action}",
            )

    def permits(
        self,
        caller: Caller,
        origin: CallOrigin,
        action: str,
        resource: str,
        keys: Mapping[str, list[str]],
    ) -> bool:
        """Return whether the caller's policies permit an action on a resource of its account.

        `keys` are condition keys of the action, in lower case.
        """
        if caller.policies is None:
            return True
        context = {**call_context(caller, origin, self._clock.now()), **keys}
        request = AccessRequest(caller.requester, action, resource, context)
        return evaluate(caller.policies, request).is_allowed

    def decide_use(
        self, access: Access, identity: IdentityArn, policies: Sequence[NamedPolicy]
    ) -> Decision:
        """Return the decision whether the caller may use an identity with these policies."""
        caller = access.caller
        request = AccessRequest(caller.requester, SEND_BOUNCE, str(identity), access.context)
        return decide(
            request,
            user=caller.policies,
            resource=read_policies(policies, PolicyKind.IDENTITY),
            owned=identity.account_id == caller.account_id,
        )

    def _resource(self, caller: Caller, name: str | None) -> str:
        """Return the ARN of the identity of the call, or `*`."""
        if not name:
            return "*"
        try:
            arn = parse_identity_arn(name)
        except ValueError:
            arn = IdentityArn(self._region, caller.account_id, name)
        return str(replace(arn, identity=identity_name(arn.identity)))


def _member_of(action: str, members: Sequence[str], parameters: Mapping[str, str]) -> str | None:
    """Return the value of the first of these members that the operation has.

    Raise `SesError` for one that is too long.
    """
    shape = operation_model(action).input_shape
    known = shape.members if shape is not None else {}
    name = next((name for name in members if name in known and name in parameters), None)
    if name is None:
        return None
    if len(parameters[name]) > _MAX_MEMBER:
        raise invalid_value(name, f"must be at most {_MAX_MEMBER} characters")
    return parameters[name]


def not_permitted(caller: Caller, identity: IdentityArn) -> SesError:
    """SES API: AccessDenied, with the text of SendBounce."""
    return SesError(
        "AccessDenied",
        f"User `{caller.arn}' is not authorized to perform `{SEND_BOUNCE}' on resource "
        f"`{identity}'",
    )


def sender_context(text: str) -> dict[str, list[str]]:
    """Return ses:FromAddress and ses:FromDisplayName; nothing for an invalid address.

    The domain is in its canonical spelling, so that no other one bypasses a condition.
    """
    try:
        mailbox: Mailbox = parse_mailbox(text)
    except AddressError:
        return {}
    found = {"ses:fromaddress": [mailbox.address.key]}
    if mailbox.display_name:
        found["ses:fromdisplayname"] = [mailbox.display_name]
    return found


def restrictions(user_name: str, policies: Sequence[NamedPolicy]) -> tuple[Policy, ...] | None:
    """Return the policies that restrict a user; None for root and a user without policies."""
    if not policies or user_name == ROOT_USER:
        return None
    return read_policies(policies, PolicyKind.USER)


def read_policies(policies: Sequence[NamedPolicy], kind: PolicyKind) -> tuple[Policy, ...]:
    """Parse policies, which were checked when they were attached."""
    return tuple(_read(policy, kind) for policy in policies)


@lru_cache(maxsize=1024)
def _read(policy: NamedPolicy, kind: PolicyKind) -> Policy:
    return parse_policy(policy.document, kind, policy.name)
