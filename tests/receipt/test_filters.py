"""IP filters: Allow wins over Block."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.receipt.filters import FilterPolicy, IpFilter, is_admitted


def block(cidr):
    return IpFilter("b", FilterPolicy.BLOCK, cidr)


def allow(cidr):
    return IpFilter("a", FilterPolicy.ALLOW, cidr)


@pytest.mark.parametrize(
    ("filters", "client", "admitted"),
    [
        ([], "192.0.2.1", True),
        ([block("192.0.2.0/24")], "192.0.2.1", False),
        ([block("192.0.2.0/24")], "198.51.100.1", True),
        ([block("192.0.2.1")], "192.0.2.2", True),
        ([block("0.0.0.0/0"), allow("192.0.2.1/24")], "192.0.2.9", True),
        ([block("0.0.0.0/0"), allow("192.0.2.0/24")], "198.51.100.1", False),
        ([allow("192.0.2.0/24")], "198.51.100.1", True),
        ([block("0.0.0.0/0")], "IPv6:2001:db8::1", True),
        ([block("::/0")], "IPv6:2001:db8::1", False),
        ([block("192.0.2.0/24")], "IPv6:::ffff:192.0.2.1", False),
        ([block("0.0.0.0/0")], "unknown", True),
    ],
)
def test_who_is_admitted(filters, client, admitted):
    assert is_admitted(client, filters) is admitted


BLOCKS = st.builds("{}/{}".format, st.ip_addresses(v=4, network="10.0.0.0/28"), st.integers(24, 32))


@given(
    st.lists(st.builds(IpFilter, st.just("x"), st.sampled_from(FilterPolicy), BLOCKS), max_size=5),
    st.ip_addresses(v=4, network="10.0.0.0/28"),
)
def test_an_allow_is_never_outvoted(filters, client):
    inside = [
        entry.policy
        for entry in filters
        if client in ipaddress.ip_network(entry.cidr, strict=False)
    ]
    expected = FilterPolicy.ALLOW in inside or not inside
    assert is_admitted(str(client), filters) is expected
