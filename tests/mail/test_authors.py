"""The author's domain, whatever the spelling: what DMARC protects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.authors import MAX_OCTETS, read_authors
from tests.mail.spellings import SPELLINGS


def authors(*values):
    return read_authors(b"".join(b"From: " + value + b"\r\n" for value in values))


@pytest.mark.parametrize("value", SPELLINGS)
def test_the_domain_is_found_in_every_spelling(value):
    found = authors(value.encode())
    assert found.is_readable, found
    assert found.domains[-1].endswith("bank.example")
    assert all(domain.endswith("bank.example") for domain in found.domains)


@pytest.mark.parametrize(
    ("values", "domains"),
    [
        ((b"a@x.example, b@y.example",), ("x.example", "y.example")),
        ((b"a@x.example", b"b@y.example"), ("x.example", "y.example")),
        ((b"a@x.example, b@x.example",), ("x.example",)),
        ((b"<a@x.example> <b@y.example>",), ("x.example", "y.example")),
        ((b"a@x.example b@y.example",), ("x.example", "y.example")),
        ((b"a@x.example <b@y.example>",), ("y.example",)),
        ((b'"a@x.example" <b@y.example>',), ("y.example",)),
    ],
)
def test_several_authors_are_several(values, domains):
    assert authors(*values).domains == domains


@pytest.mark.parametrize(
    "value",
    [b"", b"<>", b"Bank", b"Bank <service>", b"(a@x.example)", b"a@", b"=?utf-8?q?a=40x.example?="],
)
def test_a_field_that_names_nobody_is_not_readable(value):
    found = authors(value)
    assert found.has_field
    assert not found.is_readable


def test_an_address_literal_is_an_author_without_a_domain():
    found = authors(b"ann@[127.0.0.1]")
    assert (found.domains, found.has_literal, found.is_readable) == ((), True, True)


def test_a_mail_without_from_has_no_field():
    assert not read_authors(b"To: ann@x.example\r\n").has_field


def test_a_field_longer_than_any_is_not_readable():
    assert not authors(b"a" * MAX_OCTETS + b"@x.example").is_readable


@given(st.binary(max_size=300).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"")))
def test_any_octets_are_read(value):
    found = authors(value, b"ann@bank.example")
    assert "bank.example" in found.domains
    assert all(domain.isascii() and ".." not in domain for domain in found.domains)
