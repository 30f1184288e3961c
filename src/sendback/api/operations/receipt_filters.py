"""IP filters. SES API: CreateReceiptFilter, ListReceiptFilters, DeleteReceiptFilter."""

from collections.abc import Mapping
from typing import Any

from sendback.api.services import Request, Services
from sendback.service.rules.requests import filter_of


async def create_receipt_filter(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: CreateReceiptFilter."""
    await services.filters.create(request.caller.account_id, filter_of(request.input))
    return {}


async def list_receipt_filters(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: ListReceiptFilters. Sorted by name."""
    entries = await services.filters.list(request.caller.account_id)
    return {
        "Filters": [
            {
                "Name": entry.name,
                "IpFilter": {"Policy": entry.policy.value, "Cidr": entry.cidr},
            }
            for entry in entries
        ]
    }


async def delete_receipt_filter(request: Request, services: Services) -> Mapping[str, Any]:
    """SES API: DeleteReceiptFilter."""
    await services.filters.delete(request.caller.account_id, request.input["FilterName"])
    return {}


OPERATIONS = {
    "CreateReceiptFilter": create_receipt_filter,
    "DeleteReceiptFilter": delete_receipt_filter,
    "ListReceiptFilters": list_receipt_filters,
}
