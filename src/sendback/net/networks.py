"""IP addresses: which are public, and which belong to the same client."""

import ipaddress
from collections.abc import Sequence

from sendback.errors import SendbackError


class PrivateAddressError(SendbackError, ValueError):
    """A host has only private addresses, and connections to these are not allowed."""


# IPv6 addresses whose last octets are an IPv4 address that a router or the kernel may connect to:
# translated (RFC 6052 §2.1), and IPv4-compatible (RFC 4291 §2.5.5.1).
_WITH_IPV4 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
# Translated within one network (RFC 8215).
_LOCAL_TRANSLATION = ipaddress.IPv6Network("64:ff9b:1::/48")


def is_public(address: str) -> bool:
    """Return whether the address is public: not loopback, private or multicast.

    An IPv6 address with an IPv4 address in it is public if that one is.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _ipv4_within(ip)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local or ip in _LOCAL_TRANSLATION:
            return False
    return ip.is_global and not ip.is_multicast


def _ipv4_within(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that connections to this IPv6 address may reach, if any."""
    if any(ip in network for network in _WITH_IPV4):
        return ipaddress.IPv4Address(ip.packed[-4:])
    return ip.ipv4_mapped or ip.sixtofour


def permitted(host: str, addresses: Sequence[str], *, allow_private: bool) -> list[str]:
    """Return the addresses that connections are allowed to. Raise `PrivateAddressError`."""
    allowed = [address for address in addresses if allow_private or is_public(address)]
    if addresses and not allowed:
        raise PrivateAddressError(
            f"{host} is {addresses[0]}, an address of a private network, which the setting "
            "private_targets forbids"
        )
    return allowed


def client_network(ip: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or the /64 of an IPv6 one.

    A host with IPv6 usually has a whole /64 to choose its addresses from (RFC 4291 §2.5.4), so
    limits per address would not limit it. An IPv4-mapped address is the IPv4 address. Text that is
    no address (a Unix socket has none) is returned as it is.
    """
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return f"{ipaddress.IPv6Address(address.packed[:8] + bytes(8))}/64"
