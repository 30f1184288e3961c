"""Which addresses are one client, and which are public."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.net.networks import client_network, is_public


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


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b:1::8.8.8.8", "2002:a00:1::1",
        "2002:7f00:1::", "::127.0.0.1", "::10.0.0.1", "::1", "::", "fec0::1", "::ffff:10.0.0.1",
    ],
)  # fmt: skip
def test_an_ipv6_address_that_leads_to_a_private_one_is_private(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:8.8.8.8", "2606:4700::1111"]
)
def test_an_ipv6_address_that_leads_to_a_public_one_is_public(address):
    assert is_public(address)
