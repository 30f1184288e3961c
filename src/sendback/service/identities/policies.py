"""Sending-authorization policies of identities. SES API: the operations named …IdentityPolic…."""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

from sendback.authz.policy import (
    PolicyError,
    PolicyKind,
    check_identity_policy,
    compact,
    parse_policy,
)
from sendback.aws.arn import IdentityArn, parse_identity_arn
from sendback.aws.errors import SesError, shown, validation_error, violation
from sendback.clock import Clock
from sendback.mail.address import identity_name
from sendback.service.events import reports
from sendback.service.events.bus import EventBus
from sendback.store.access.users import NamedPolicy
from sendback.store.engine.errors import LimitReachedError, NotFoundError
from sendback.store.engine.store import Store
from sendback.store.identities.policies import (
    DeleteIdentityPolicy,
    FindIdentityPolicies,
    PutIdentityPolicy,
)

MAX_POLICIES = 20
_MAX_NAME = 64
_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class IdentityPolicies:
    """The policies of all accounts' identities."""

    def __init__(self, store: Store, clock: Clock, region: str, events: EventBus) -> None:
        self._store = store
        self._clock = clock
        self._region = region
        self._events = events

    async def put(self, account_id: str, identity: str, name: str, document: str) -> None:
        """Attach or replace a policy of an identity, which need not be verified yet.

        Raise `SesError`: InvalidPolicy, InvalidParameterValue, ValidationError. As in the live
        service, the policy is checked before the identity.
        """
        check_policy_name(name)
        key = own_identity(account_id, self._region, identity, _not_an_identity())
        arn = IdentityArn(self._region, account_id, key)
        try:
            check_identity_policy(parse_policy(document, PolicyKind.IDENTITY), str(arn))
        except PolicyError as error:
            raise SesError("InvalidPolicy", str(error)) from None
        policy = NamedPolicy(name, compact(document))
        unit = PutIdentityPolicy(account_id, key, policy, MAX_POLICIES)
        try:
            await self._store.write(unit)
        except NotFoundError:
            raise _not_an_identity() from None
        except LimitReachedError:
            raise SesError(
                "InvalidParameterValue",
                f"Number of policies for <{shown(identity)}> exceeds max allowed number of "
                "policies per resource",
            ) from None
        self._report(account_id, key, "policy_put")

    async def find(self, account_id: str, identity: str) -> Sequence[NamedPolicy]:
        """Return the policies of the identity, by name."""
        key = own_identity(account_id, self._region, identity)
        return await self._store.read(FindIdentityPolicies(account_id, key))

    async def delete(self, account_id: str, identity: str, name: str) -> bool:
        """Delete a policy; return whether there was one. SES returns the same in both cases."""
        key = own_identity(account_id, self._region, identity)
        was_there = await self._store.write(DeleteIdentityPolicy(account_id, key, name))
        if was_there:
            self._report(account_id, key, "policy_deleted")
        return was_there

    def _report(self, account_id: str, identity: str, change: str) -> None:
        now = self._clock.now()
        self._events.publish(reports.identity_event(account_id, identity, now, change, None))


def own_identity(account_id: str, region: str, text: str, unknown: SesError | None = None) -> str:
    """Return the name of an identity given by name or ARN.

    Raise `SesError` for an invalid ARN, and `unknown` for one of another account or region.
    """
    if not text.strip():
        raise SesError("InvalidParameterValue", "Identity is required.")
    if not text.startswith("arn:"):
        return identity_name(text)
    try:
        arn = parse_identity_arn(text)
    except ValueError as error:
        raise SesError("InvalidParameterValue", f"Invalid identity: {shown(str(error))}") from None
    if (arn.account_id, arn.region) != (account_id, region):
        raise unknown or unknown_identity(text)
    return identity_name(arn.identity)


def own_identities(account_id: str, region: str, texts: Iterable[str]) -> dict[str, str]:
    """Return the names of identities given by name or ARN, by the text as given.

    ARNs of other accounts and regions, and invalid ones, are omitted.
    """
    found = {}
    for text in texts:
        with suppress(SesError):
            found[text] = own_identity(account_id, region, text)
    return found


def unknown_identity(text: str) -> SesError:
    """Return the error of most operations for an identity that the account does not have."""
    return SesError("InvalidParameterValue", f"Identity <{shown(text)}> does not exist.")


def _not_an_identity() -> SesError:
    return SesError(
        "InvalidParameterValue", "Invalid identity. Must be a verified email address or domain."
    )


def check_policy_name(name: str) -> None:
    """Raise `SesError` for an invalid name."""
    if not name.strip():
        raise SesError("InvalidParameterValue", "PolicyName is required.")
    if len(name) > _MAX_NAME:
        raise validation_error(
            [violation("policyName", f"have length less than or equal to {_MAX_NAME}")]
        )
    if not _NAME.fullmatch(name):
        raise SesError(
            "InvalidParameterValue",
            "PolicyName is invalid. Policy names must only include alpha-numeric characters, "
            "dashes, and underscores.",
        )
