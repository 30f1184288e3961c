"""IP filters by boto3, in the live service's words."""

import pytest

from tests.contract.errors import error, violations

NOT_NULL = "failed to satisfy constraint: Member must not be null"


def given(name="a", cidr="192.0.2.0/24", policy="Block"):
    return {"Name": name, "IpFilter": {"Policy": policy, "Cidr": cidr}}


def test_filters_from_creation_to_deletion(client):
    client.create_receipt_filter(Filter=given("b"))
    client.create_receipt_filter(Filter=given("a", "10.0.0.1/24", "Allow"))
    assert client.list_receipt_filters()["Filters"] == [
        given("a", "10.0.0.1/24", "Allow"),
        given("b"),
    ]
    client.delete_receipt_filter(FilterName="b")
    client.delete_receipt_filter(FilterName="b")
    assert [entry["Name"] for entry in client.list_receipt_filters()["Filters"]] == ["a"]


def test_no_filter_at_all_is_one_violation(client):
    assert error(client.create_receipt_filter) == violations(f"Value at 'filter' {NOT_NULL}")


def test_what_a_filter_must_have(client):
    found = error(client.create_receipt_filter, Filter={"IpFilter": {"Policy": "Perhaps"}})
    assert found == violations(
        f"Value at 'filter.name' {NOT_NULL}",
        "Value at 'filter.ipFilter.policy' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Allow, Block]",
        f"Value at 'filter.ipFilter.cidr' {NOT_NULL}",
    )


def test_a_filters_name(client):
    empty = ("InvalidParameterValue", "filterName must not be empty")
    assert error(client.create_receipt_filter, Filter=given("")) == empty
    for name in ("a b", "-a", "a-", "x" * 65, "ä"):
        expected = ("InvalidParameterValue", f"Not a valid filterName: {name}")
        assert error(client.create_receipt_filter, Filter=given(name)) == expected


@pytest.mark.parametrize(
    "cidr", ["10.0.0.1", "10.0.0.1/24", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1", "::/0"]
)
def test_blocks_that_are(client, cidr):
    client.create_receipt_filter(Filter=given(cidr=cidr))
    assert client.list_receipt_filters()["Filters"] == [given(cidr=cidr)]


@pytest.mark.parametrize(
    "cidr",
    ["", "x", "10.0.0.0/33", "10.0.0", "10.0.0.256", "2001:db8::/129", "[2001:db8::1]",
     "fe80::1%eth0", "::ffff:10.0.0.1", "１０.0.0.1", "10.0.0.0/24 ", "10.0.0.0/-1", "1:2"],
)  # fmt: skip
def test_blocks_that_are_none(client, cidr):
    expected = ("InvalidParameterValue", f"Invalid CIDR block: {cidr}")
    assert error(client.create_receipt_filter, Filter=given(cidr=cidr)) == expected


def test_a_filter_exists_once_and_100_times(client):
    for number in range(100):
        client.create_receipt_filter(Filter=given(f"f{number}"))
    expected = ("AlreadyExists", "Filter already exists: f7")
    assert error(client.create_receipt_filter, Filter=given("f7", "10.0.0.0/8")) == expected
    expected = ("LimitExceeded", "Too many filters")
    assert error(client.create_receipt_filter, Filter=given("another")) == expected
