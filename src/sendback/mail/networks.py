"""Which IP addresses a stranger may make this server connect to."""

import ipaddress
from collections.abc import Sequence


class PrivateAddressError(ValueError):
    """A host has only addresses that may not be connected to."""


def is_public(address: str) -> bool:
    """Whether it is an address of the internet at large: not loopback, private or multicast."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast


def permitted(host: str, addresses: Sequence[str], *, allow_private: bool) -> list[str]:
    """Those of a host's addresses that may be connected to. Raises `PrivateAddressError`."""
    allowed = [address for address in addresses if allow_private or is_public(address)]
    if addresses and not allowed:
        raise PrivateAddressError(
            f"{host} is {addresses[0]}, an address of a private network, which the setting "
            "private_targets forbids"
        )
    return allowed
