"""The arguments of operations: the services, and the verified and decoded request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sendback.service.access.authorization import Access
from sendback.service.access.caller import Caller
from sendback.service.bouncing.send_bounce import Bouncing
from sendback.service.heavy import HeavyWork
from sendback.service.identities.attributes import IdentityAttributes
from sendback.service.identities.identities import Identities
from sendback.service.identities.policies import IdentityPolicies
from sendback.service.identities.verification_templates import VerificationTemplates
from sendback.service.outbox.statistics import SendingStatistics
from sendback.service.rules.filters import Filters
from sendback.service.rules.rule_sets import RuleSets
from sendback.store.bouncing.calls import CallKey


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases of the API, and the thread for large requests."""

    heavy: HeavyWork
    bouncing: Bouncing
    identities: Identities
    identity_attributes: IdentityAttributes
    identity_policies: IdentityPolicies
    filters: Filters
    rule_sets: RuleSets
    sending: SendingStatistics
    verification_templates: VerificationTemplates


@dataclass(frozen=True, slots=True)
class Request:
    """A verified call: its caller, its input with the model's types, the key of its retries."""

    access: Access
    input: Mapping[str, Any]
    call: CallKey | None

    @property
    def caller(self) -> Caller:
        return self.access.caller
