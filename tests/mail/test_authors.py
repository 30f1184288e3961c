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
    assert "bank.example" in [domain[-12:] for domain in found.domains]
    if found.is_one:
        assert found.domains[0].endswith("bank.example")


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
    assert not found.domains
    assert not found.has_literal


def test_an_address_literal_is_an_author_without_a_domain():
    found = authors(b"ann@[127.0.0.1]")
    assert (found.domains, found.has_literal, found.is_one) == ((), True, True)


def test_a_mail_without_from_has_no_field():
    assert not read_authors(b"To: ann@x.example\r\n").has_field


def test_a_field_longer_than_any_is_not_readable():
    found = authors(b"a" * MAX_OCTETS + b"@x.example")
    assert (found.domains, found.is_one) == ((), False)


READ_DIFFERENTLY = [
    "ceo@ba nk.example", "<ceo@ba nk.example>", "ceo@ba(c)nk.example", "ceo@bank\\.example",
    "ceo@bank.exampl\\e", 'ceo@ba"nk".example', 'ceo@bank".example"', "ceo@bank;.example",
    "ceo@[bank.example]", "ceo@[]bank.example", "ceo@[bank.example", "ceo@bank.example Ann",
    "ceo@bank.example>x@evil.example", "<ceo@bank.example x@evil.example>",
    "<ceo@bank.example\\> x@evil.example>", "<ceo@bank.example:x@evil.example>",
    "<@x,ceo@bank.example,x@evil.example>", "ceo@<bank.example>", "ceo@", "ceo@!bank.example",
    "ceo@=bank.example", "ceo@\0bank.example", "ceo@=?utf-8?q?bank.example?=",
    "=?utf-8?q?ceo=40bank.example?=", "ceo@bank.example\u200e", "ceo@\u200ebank.example",
    "<ceo@bank.example\u202e>", "ceo@bank\u2024example", "ceo@bank.example\ufffd",
    "ceo@ ,bank.example",
]  # fmt: skip


@pytest.mark.parametrize("value", READ_DIFFERENTLY)
@pytest.mark.parametrize(
    "more", ["{}, x@evil.example", "x@evil.example, {}", "<x@evil.example>,{}"]
)
def test_an_address_that_clients_read_differently_is_an_author_more(value, more):
    found = authors(more.format(value).encode())
    assert not found.is_one
    assert "evil.example" in found.domains


@pytest.mark.parametrize("value", READ_DIFFERENTLY)
def test_an_address_that_clients_read_differently_is_no_readable_author(value):
    assert not authors(value.encode()).is_one


@pytest.mark.parametrize(
    "value",
    [
        # some clients read nothing behind these
        "ceo@bank.example (<x@evil.example>", "ceo@bank.example (c <x@evil.example>",
        'ceo@bank.example "<x@evil.example>', 'ceo@bank.example " <x@evil.example>',
        "ceo@bank.example\0<x@evil.example>", "<x\0@evil.example> ceo@bank.example",
        # text around the angle bracket
        "<x@evil.example> ceo@bank.example", "<x@evil.example>ceo@bank.example",
        "<x@evil.example>@bank.example", "<x@evil.example> (c) ceo@bank.example",
        "<x@evil.example> Bank ceo@bank.example (c)", "a <x@evil.example>> ceo@bank.example",
        "ceo@bank.example> <x@evil.example>", "ceo@bank.example) <x@evil.example>",
        "ceo@bank.example] <x@evil.example>", "ceo@bank.example: <x@evil.example>",
        "ceo@bank.example\\ <x@evil.example>", "ceo@bank.example <> <x@evil.example>",
        "ceo@bank.example<<x@evil.example>", "@ceo@bank.example <x@evil.example>",
        # clients that decode the local part show its domain
        "=?utf-8?q?ceo=40bank.example?=@evil.example",
        "=?utf-8?q?ceo=40bank.example?==?utf-8?q?=0A=00?=@evil.example",
        "<=?utf-8?b?Y2VvQGJhbmsuZXhhbXBsZQ==?=@evil.example>",
    ],
)  # fmt: skip
def test_no_client_sees_another_domain_than_the_only_author_has(value):
    found = authors(value.encode())
    assert not found.is_one
    assert "evil.example" in found.domains
    assert "bank.example" in found.domains or found.has_unreadable


@pytest.mark.parametrize(
    "value",
    [
        "ann@bank.example", "Ann <ann@bank.example>", '"a\\"b"@bank.example', "ann@bank.example.",
        "Doe, Ann <ann@bank.example>", "Ann, Dr. <ann@bank.example>", "ann @ bank . example",
        "ann(c)@(c)bank.example(c)", "<ann@bank.example",
        "<@a.example,@b.example:ann@bank.example>",
        "J.R. Doe, MD <ann@bank.example>", "g: ann@bank.example;", "ann@b\u00adank.example",
        "ann@home.example <ann@bank.example>", "Ann :( <ann@bank.example>",
        'Ann 5" <ann@bank.example>',
        "<ann@bank.example> Ann", "Ann (ann@home.example) <ann@bank.example>",
        '"ann@home.example" <ann@bank.example>', "<> <ann@bank.example>", "<ann@bank.example> <>",
    ],
)  # fmt: skip
def test_what_senders_write_is_one_author(value):
    found = authors(value.encode())
    assert (found.domains, found.is_one) == (("bank.example",), True)


@given(st.binary(max_size=300).map(lambda value: value.replace(b"\r", b"").replace(b"\n", b"")))
def test_any_octets_are_read(value):
    found = authors(value, b"ann@bank.example")
    assert "bank.example" in found.domains
    assert all(domain.isascii() and ".." not in domain for domain in found.domains)


def test_the_end_of_a_name_that_is_too_long_is_what_counts():
    (domain,) = authors(b"ceo@" + b"a." * 600 + b"bank.example").domains
    assert domain.endswith(".bank.example")
