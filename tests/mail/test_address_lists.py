"""Address lists as people write them, and as nobody should."""

from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendback.mail.address_lists import first_unclosed, read_address_list
from tests.mail import single_steps


def read(text):
    return [(entry.name, entry.address) for entry in read_address_list(text)]


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("ann@example.com", [("", "ann@example.com")]),
        ("Ann Doe <ann@example.com>", [("Ann Doe", "ann@example.com")]),
        ('"Doe, Ann" <ann@example.com>', [("Doe, Ann", "ann@example.com")]),
        (r'"A \"B\" C" <ann@example.com>', [('A "B" C', "ann@example.com")]),
        ("a@x.example, b@y.example", [("", "a@x.example"), ("", "b@y.example")]),
        ("ann@example.com (Ann (the first))", [("Ann (the first)", "ann@example.com")]),
        (
            "bob@example.com (x, y), tom@x.example",
            [("x, y", "bob@example.com"), ("", "tom@x.example")],
        ),
        ("Friends: a@x.example, b@y.example;", [("", "a@x.example"), ("", "b@y.example")]),
        ("undisclosed-recipients:;", []),
        ('"john doe"@example.com', [("", '"john doe"@example.com')]),
        ('<"a>b"@example.com>', [("", '"a>b"@example.com')]),
        ("<@a.example,@b.example:c@d.example>", [("", "c@d.example")]),
        ("ann @ example . com", [("", "ann@example.com")]),
        ("ann@example(a comment).com", [("a comment", "ann@example.com")]),
        (
            "ann@[IPv6:2001:db8::1], b@x.example",
            [("", "ann@[IPv6:2001:db8::1]"), ("", "b@x.example")],
        ),
        ("", []),
        (" , ,; <>", []),
        # What is never closed is an ordinary character.
        ('"Bank <a@x.example>', [('"Bank', "a@x.example")]),
        ("Bank (x <a@x.example>", [("Bank (x", "a@x.example")]),
        ("Bank <a@x.example", [("Bank", "a@x.example")]),
        (
            "Bank <a@x.example, Other <b@y.example>",
            [("Bank", "a@x.example"), ("Other", "b@y.example")],
        ),
        ("ann@[192.0.2.1, b@x.example", [("", "ann@[192.0.2.1"), ("", "b@x.example")]),
        # The text in angle brackets is the address.
        ("support@x.example <a@y.example>", [("support@x.example", "a@y.example")]),
        ("<<a@x.example>>", [("", "a@x.example")]),
        ("a@x.example <>", [("", "a@x.example")]),
        # More than one author is more than one entry.
        ("<a@x.example> <b@y.example>", [("", "a@x.example"), ("", "b@y.example")]),
        ("<a@x.example <b@y.example>", [("", "a@x.example"), ("", "b@y.example")]),
        ("<a@x.example> b@y.example", [("", "a@x.example"), ("", "b@y.example")]),
        ("A <a@x.example> B b@y.example", [("A", "a@x.example"), ("B", "b@y.example")]),
        ("A <a@x.example> B", [("A B", "a@x.example")]),
        ("A <> a@x.example", [("A", "a@x.example")]),
        ("a@x.example b@y.example", [("", "a@x.example"), ("", "b@y.example")]),
        ("c@x.example; d@y.example", [("", "c@x.example"), ("", "d@y.example")]),
        ("Bank; Info <a@x.example>", [("Bank; Info", "a@x.example")]),
        ("[Bank] Info <a@x.example>", [("[Bank] Info", "a@x.example")]),
        ("Doe, John <j@x.example>", [("", "Doe"), ("John", "j@x.example")]),
        ("=?utf-8?q?a=2C_b?= <a@x.example>", [("=?utf-8?q?a=2C_b?=", "a@x.example")]),
    ],
)
def test_reads(text, entries):
    assert read(text) == entries


@given(st.text(alphabet='ab @.,;:<>()[]"\\=? \t\xa0é'))
def test_any_text_is_read_and_no_address_is_lost(text):
    entries = read_address_list(text)
    assert all(entry.name or entry.address for entry in entries)
    assert sum(entry.address.count("@") + entry.name.count("@") for entry in entries) <= text.count(
        "@"
    )


NAMES = st.text(alphabet="abc XYZ.é'", min_size=1).map(" ".join).map(str.strip).filter(bool)
ADDRESSES = st.from_regex(r"[a-z]{1,8}(\.[a-z]{1,4})?@[a-z]{1,6}\.example", fullmatch=True)


@given(st.lists(st.tuples(NAMES, ADDRESSES), min_size=1, max_size=8))
def test_what_is_written_by_the_book_is_read_back(entries):
    assert read(", ".join(f'"{name}" <{address}>' for name, address in entries)) == entries


PIECES = [
    "(", ")", "<", ">", "@", ",", ";", ":", '"', "\\", "[", "]", ".", " ", "\t", "\xa0", "a", "b.c",
    "a@b", "x <a@b>", "<a@b>", '"q r"', "(c)", "((", "@@", '""', "group:", ", ", "  ", "a b c d e",
]  # fmt: skip


@settings(max_examples=3000, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(PIECES), st.integers(1, 5)).map(lambda pair: pair[0] * pair[1]),
        max_size=14,
    ).map("".join)
)
def test_what_is_repeated_is_read_as_in_single_steps(text):
    assert [astuple(entry) for entry in read_address_list(text)] == [
        astuple(entry) for entry in single_steps.read_address_list(text)
    ]
    assert first_unclosed(text) == single_steps.first_unclosed(text)
