"""The address of an SMTP client: as text, as its network, as an address literal."""

import ipaddress
from functools import lru_cache

from sendback.net.networks import client_network


@lru_cache(maxsize=4096)
def client_address(host: str) -> str:
    """Return the client's IP address, in one spelling for filters, SPF and the envelope.

    A client that reaches an IPv6 socket by IPv4 has its IPv4 address; an interface (`%eth0`) is
    left out.
    """
    text = host.partition("%")[0]
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return text
    return str(address.ipv4_mapped or address)


@lru_cache(maxsize=4096)
def network(client_ip: str) -> str:
    """Return the network that counts as one client, from a cache."""
    return client_network(client_ip)


def address_literal(ip: str) -> str:
    """Return an address literal without its brackets (RFC 5321 §4.1.3)."""
    return f"IPv6:{ip}" if ":" in ip else ip
