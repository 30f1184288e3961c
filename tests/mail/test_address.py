import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.address import Address, AddressError, parse_address, parse_mailbox
from sendback.mail.covering import covering_names


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("ann@example.com", "ann", "example.com"),
        ("Ann.B+tag@Example.COM", "Ann.B+tag", "Example.COM"),
        ("!#$%&'*+/=?^_`{|}~-@example.com", "!#$%&'*+/=?^_`{|}~-", "example.com"),
        ('"a b"@example.com', '"a b"', "example.com"),
        (r'"a\"@b"@example.com', r'"a\"@b"', "example.com"),
        ("büb@exämple.com", "büb", "exämple.com"),
        ("ann@localhost", "ann", "localhost"),
        ("ann@[192.0.2.1]", "ann", "[192.0.2.1]"),
        ("ann@[IPv6:2001:db8::1]", "ann", "[IPv6:2001:db8::1]"),
        (f"{'a' * 200}@example.com", "a" * 200, "example.com"),
    ],
)
def test_reads_what_the_standards_allow(text, local, domain):
    assert parse_address(text) == Address(local, domain)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ann",
        "@example.com",
        "ann@",
        "a..b@example.com",
        ".a@example.com",
        "a b@example.com",
        "a@b@example.com",
        "ann@exa mple.com",
        "ann@-example.com",
        "ann@example..com",
        "ann@.example.com",
        "ann@example.com\r\nX: y",
        "ann\u2028@example.com",
        "ann\u0085@example.com",
        "ann\ud800@example.com",
        "ann@[300.0.0.1]",
        "ann@[IPv6:zz]",
        "ann@[192.0.2.1",
        f"{'a' * 256}@example.com",
        f"ann@{'a' * 64}.com",
        f"ann@{'a.' * 130}com",
    ],
)
def test_refuses_what_is_no_address(text):
    with pytest.raises(AddressError):
        parse_address(text)


def test_compares_the_domain_without_case_and_in_a_labels_and_the_local_part_with_case():
    assert parse_address("Ann@EXAMPLE.com").key == "Ann@example.com"
    assert parse_address("ann@exämple.com").key == "ann@xn--exmple-cua.com"
    assert parse_address("ann@XN--EXMPLE-CUA.com").key == "ann@xn--exmple-cua.com"


def test_only_a_local_part_that_is_not_ascii_needs_smtputf8():
    assert not parse_address("ann@exämple.com").needs_smtputf8
    assert parse_address("änn@example.com").needs_smtputf8


def test_an_address_is_covered_by_itself_its_untagged_form_and_its_domains():
    assert covering_names(parse_address("Ann+x@Mail.Example.com")) == (
        "Ann+x@mail.example.com",
        "Ann@mail.example.com",
        "mail.example.com",
        "example.com",
        "com",
    )


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("ann@example.com", "", "ann@example.com"),
        ("<ann@example.com>", "", "ann@example.com"),
        ("Mail Delivery Subsystem <m@example.com>", "Mail Delivery Subsystem", "m@example.com"),
        ('"Doe, Ann" <ann@example.com>', "Doe, Ann", "ann@example.com"),
        ("Änn <ann@example.com>", "Änn", "ann@example.com"),
    ],
)
def test_reads_one_mailbox_with_a_display_name(text, name, address):
    mailbox = parse_mailbox(text)
    assert (mailbox.display_name, str(mailbox.address)) == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        "Ann <ann@example.com>, Bob <bob@example.com>",
        "ann@example.com, bob@example.com",
        "Friends: ann@example.com;",
        "Doe, Ann <ann@example.com>",
        "Ann <ann@example.com",
        "Ann <ann@example.com>\r\nBcc: eve@example.com",
        "Ann\n <ann@example.com>",
        "A <b@example.com> <ann@example.com>",
    ],
)
def test_refuses_what_is_more_than_one_mailbox(text):
    with pytest.raises(AddressError):
        parse_mailbox(text)


@given(st.text())
def test_any_text_is_an_address_or_refused(text):
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert str(address) == text
    assert "\r" not in text
    assert "\n" not in text
    assert parse_address(address.key).key == address.key
