"""Which addresses are one client."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.net.networks import client_network


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_an_ipv4_address_and_a_64_are_one_client(ip, network):
    assert client_network(ip) == network


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_every_address_of_a_64_is_the_same_client(address, other_half):
    other = ipaddress.IPv6Address(int(address) >> 64 << 64 | other_half)
    if address.ipv4_mapped is None and other.ipv4_mapped is None:
        assert client_network(str(address)) == client_network(str(other))
        assert address in ipaddress.ip_network(client_network(str(address)))
