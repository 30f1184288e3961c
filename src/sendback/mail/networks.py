"""Which IP addresses a stranger may make this server connect to."""

import ipaddress


def is_public(address: str) -> bool:
    """Whether it is an address of the internet at large: not loopback, private or multicast."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_global and not ip.is_multicast
