"""The operations: one function each, registered by its SES name; one module for each family."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sendback.api.operations import (
    bounce,
    identities,
    identity_attributes,
    identity_policies,
    receipt_filters,
    receipt_rules,
    sending,
    verification_templates,
)
from sendback.api.services import Request, Services

Operation = Callable[[Request, Services], Awaitable[Mapping[str, Any]]]

OPERATIONS: dict[str, Operation] = {
    **bounce.OPERATIONS,
    **identities.OPERATIONS,
    **identity_attributes.OPERATIONS,
    **identity_policies.OPERATIONS,
    **receipt_filters.OPERATIONS,
    **receipt_rules.OPERATIONS,
    **sending.OPERATIONS,
    **verification_templates.OPERATIONS,
}
