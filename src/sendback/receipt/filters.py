"""IP filters: who may connect. SES API: ReceiptFilter.

Allow wins over Block, so that `0.0.0.0/0` blocked plus a list of allowed networks admits that
list only.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from sendback.aws.errors import shown
from sendback.receipt.constraints import check_name, invalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Observed on the live SES: no brackets, zones, IPv4-mapped forms or full-width digits.
_CIDR = re.compile(
    r"([0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]{1,40})(?:/([0-9]{1,3}))?"
)


class FilterPolicy(StrEnum):
    """SES API: ReceiptFilterPolicy."""

    BLOCK = "Block"
    ALLOW = "Allow"


@dataclass(frozen=True)
class IpFilter:
    """One filter; `cidr` as it was given, host bits included."""

    name: str
    policy: FilterPolicy
    cidr: str

    @cached_property
    def network(self) -> Network:
        return parse_cidr(self.cidr)


def parse_cidr(text: str) -> Network:
    """Return the network of an address or block. Raise `SesError`: InvalidParameterValue."""
    match = _CIDR.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise invalid(f"Invalid CIDR block: {shown(text)}") from None


def check_filter(wanted: IpFilter) -> None:
    """Raise `SesError` for an invalid filter."""
    if not wanted.name:
        raise invalid("filterName must not be empty")
    if not re.fullmatch(r"[a-zA-Z0-9_.-]+", wanted.name):
        raise invalid(f"Not a valid filterName: {shown(wanted.name)}")
    check_name(wanted.name, "filterName")
    parse_cidr(wanted.cidr)


def is_admitted(client_ip: str, filters: Sequence[IpFilter]) -> bool:
    """Whether a client with this address (with or without `IPv6:`) may send mail."""
    if not filters:
        return True
    try:
        address = ipaddress.ip_address(client_ip.removeprefix("IPv6:"))
    except ValueError:
        return True  # a client without an IP address, by a Unix socket
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    policies = {entry.policy for entry in filters if address in entry.network}
    return FilterPolicy.ALLOW in policies or FilterPolicy.BLOCK not in policies
