"""The caller of an operation, after its signature was verified, and the origin of the call."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sendback.authz.evaluate import Requester
from sendback.authz.policy import Policy
from sendback.aws.arn import ROOT_USER, root_arn, user_arn


@dataclass(frozen=True, slots=True)
class Caller:
    """An account's user, with the access key that signed.

    `policies` restrict the user; None if nothing does.
    """

    account_id: str
    user_name: str
    access_key: str
    policies: tuple[Policy, ...] | None = None

    @property
    def arn(self) -> str:
        if self.user_name == ROOT_USER:
            return root_arn(self.account_id)
        return user_arn(self.account_id, self.user_name)

    @property
    def requester(self) -> Requester:
        return Requester(self.account_id, self.arn)


@dataclass(frozen=True, slots=True)
class CallOrigin:
    """The condition keys of a connection: the client's address, its User-Agent, TLS."""

    source_ip: str = ""
    user_agent: str = ""
    secure: bool = False


NO_ORIGIN = CallOrigin()


def call_context(caller: Caller, origin: CallOrigin, now: datetime) -> Mapping[str, list[str]]:
    """Return the condition keys of every call. IAM User Guide, "Global condition context keys"."""
    is_root = caller.user_name == ROOT_USER
    context = {
        "aws:currenttime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "aws:epochtime": str(int(now.timestamp())),
        "aws:securetransport": "true" if origin.secure else "false",
        "aws:principalaccount": caller.account_id,
        "aws:principalarn": caller.arn,
        "aws:principaltype": "Account" if is_root else "User",
        "aws:userid": caller.account_id if is_root else caller.access_key,
        "aws:username": "" if is_root else caller.user_name,
        "aws:sourceip": origin.source_ip,
        "aws:useragent": origin.user_agent,
        "ses:apiversion": "2010-12-01",
    }
    return {key: [value] for key, value in context.items() if value}
