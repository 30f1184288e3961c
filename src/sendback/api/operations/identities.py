"""Identities. SES API: VerifyEmailIdentity, VerifyDomainIdentity, VerifyDomainDkim, ListIdentities,
GetIdentityVerificationAttributes, DeleteIdentity, and the older operations on addresses.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sendback.api.services import Request, Services
from sendback.aws.errors import SesError
from sendback.service.identities.dkim_keys import tokens
from sendback.service.identities.identities import MAX_PAGE
from sendback.store.identities.identities import Identity, IdentityKind

_MAX_ATTRIBUTES = 100  # SES API: "up to 100 identities at a time"


async def verify_email_identity(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: VerifyEmailIdentity."""
    await services.identities.verify_email(request.caller.account_id, request.input["EmailAddress"])
    return {}


async def verify_domain_identity(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: VerifyDomainIdentity. The token is the required content of the TXT record."""
    identity = await services.identities.verify_domain(
        request.caller.account_id, request.input["Domain"]
    )
    return {"VerificationToken": identity.verification_token}


async def verify_domain_dkim(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: VerifyDomainDkim. The tokens are the selectors of the keys to publish."""
    keys = await services.identities.verify_dkim(request.caller.account_id, request.input["Domain"])
    return {"DkimTokens": tokens(keys)}


async def list_verified_email_addresses(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: ListVerifiedEmailAddresses."""
    found = await services.identities.verified_addresses(request.caller.account_id)
    return {"VerifiedEmailAddresses": found}


async def delete_verified_email_address(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: DeleteVerifiedEmailAddress. Deleting an unknown address succeeds."""
    await services.identities.delete(request.caller.account_id, request.input["EmailAddress"])
    return {}


async def list_identities(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: ListIdentities. A page has at most `MaxItems` identities, 1 to 1,000."""
    limit = request.input.get("MaxItems")
    if limit is not None and not 1 <= limit <= MAX_PAGE:
        raise SesError(
            "InvalidParameterValue",
            f"Value {limit} for parameter MaxItems is invalid. "
            f"MaxItems must be between 1 and {MAX_PAGE}.",
        )
    kind = request.input.get("IdentityType")
    page = await services.identities.list(
        request.caller.account_id,
        IdentityKind(kind) if kind else None,
        request.input.get("NextToken"),
        limit or MAX_PAGE,
    )
    return {
        "Identities": [identity.identity for identity in page.identities],
        "NextToken": page.next_token,
    }


async def get_identity_verification_attributes(
    request: Request, services: Services
) -> Mapping[str, Any]:
    """SES API: GetIdentityVerificationAttributes. Unknown identities are omitted."""
    found = await services.identities.find(request.caller.account_id, checked_names(request))
    return {
        "VerificationAttributes": {name: _attributes(identity) for name, identity in found.items()}
    }


async def delete_identity(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: DeleteIdentity. Deleting an unknown identity succeeds."""
    await services.identities.delete(request.caller.account_id, request.input["Identity"])
    return {}


def named_identity(request: Request) -> tuple[str, str]:
    """Return the caller's account and the identity in the request, a name or an ARN."""
    return request.caller.account_id, request.input["Identity"]


def checked_names(request: Request) -> Sequence[str]:
    """Return the requested identities. Raise `SesError` for more than 100."""
    names: Sequence[str] = request.input["Identities"]
    if len(names) > _MAX_ATTRIBUTES:
        raise SesError("InvalidParameterValue", f"Identities: at most {_MAX_ATTRIBUTES} at a time.")
    return names


def _attributes(identity: Identity) -> dict[str, str]:
    attributes = {"VerificationStatus": identity.status.value}
    if identity.kind is IdentityKind.DOMAIN:
        attributes["VerificationToken"] = identity.verification_token
    return attributes


OPERATIONS = {
    "DeleteVerifiedEmailAddress": delete_verified_email_address,
    "ListVerifiedEmailAddresses": list_verified_email_addresses,
    "VerifyDomainDkim": verify_domain_dkim,
    "VerifyEmailAddress": verify_email_identity,
    "VerifyEmailIdentity": verify_email_identity,
    "VerifyDomainIdentity": verify_domain_identity,
    "ListIdentities": list_identities,
    "GetIdentityVerificationAttributes": get_identity_verification_attributes,
    "DeleteIdentity": delete_identity,
}
