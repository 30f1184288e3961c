"""Sending-authorization policies. SES API: PutIdentityPolicy, GetIdentityPolicies,
ListIdentityPolicies, DeleteIdentityPolicy.
"""

from collections.abc import Mapping
from typing import Any

from sendback.api.operations.identities import named_identity
from sendback.api.services import Request, Services
from sendback.aws.errors import SesError
from sendback.service.identities.policies import MAX_POLICIES

Output = Mapping[str, Any]


async def put_identity_policy(request: Request, services: Services) -> Output:
    """SES API: PutIdentityPolicy."""
    await services.identity_policies.put(
        *named_identity(request), request.input["PolicyName"], request.input["Policy"]
    )
    return {}


async def get_identity_policies(request: Request, services: Services) -> Output:
    """SES API: GetIdentityPolicies. Unknown names are omitted."""
    wanted = request.input["PolicyNames"]
    if len(wanted) > MAX_POLICIES:
        raise SesError("InvalidParameterValue", f"PolicyNames: at most {MAX_POLICIES} at a time.")
    found = await services.identity_policies.find(*named_identity(request))
    return {"Policies": {policy.name: policy.document for policy in found if policy.name in wanted}}


async def list_identity_policies(request: Request, services: Services) -> Output:
    """SES API: ListIdentityPolicies. Sorted by name."""
    found = await services.identity_policies.find(*named_identity(request))
    return {"PolicyNames": [policy.name for policy in found]}


async def delete_identity_policy(request: Request, services: Services) -> Output:
    """SES API: DeleteIdentityPolicy. Deleting an unknown policy succeeds."""
    await services.identity_policies.delete(*named_identity(request), request.input["PolicyName"])
    return {}


OPERATIONS = {
    "DeleteIdentityPolicy": delete_identity_policy,
    "GetIdentityPolicies": get_identity_policies,
    "ListIdentityPolicies": list_identity_policies,
    "PutIdentityPolicy": put_identity_policy,
}
