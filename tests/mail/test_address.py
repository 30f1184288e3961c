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


@pytest.mark.parametrize(
    "spellings",
    [
        ["ceo@example.com", '"ceo"@example.com', r'"c\e\o"@EXAMPLE.com', "ceo@example.COM"],
        ['"a b"@example.com', r'"a\ b"@example.com', r'"\a b"@example.com'],
        ['"a.b"@example.com', "a.b@example.com"],
        ['"a..b"@example.com', "a..b@example.com", r'"a\.\.b"@example.com'],
        ['".a"@example.com', ".a@example.com"],
        ['"a@b"@example.com', r'"a\@b"@example.com'],
        ["b\u00fcb@example.com", "bu\u0308b@example.com", '"b\u00fcb"@example.com'],
        ["bob@b\u00fccher.example", "bob@xn--bcher-kva.example", "bob@BU\u0308CHER.example"],
        ["a@[IPv6:2001:db8::1]", "a@[ipv6:2001:DB8:0:0::1]", '"a"@[IPv6:2001:db8:0::1]'],
    ],
)
def test_all_spellings_of_an_address_have_one_key(spellings):
    addresses = [parse_address(text, any_dots=True) for text in spellings]
    assert len({address.key for address in addresses}) == 1
    assert parse_address(addresses[0].key).key == addresses[0].key
    assert len({covering_names(address) for address in addresses}) == 1


def test_a_local_part_that_needs_its_quotes_keeps_them_in_a_header():
    address = parse_address("taro..yamada@docomo.example", any_dots=True)
    assert str(address) == "taro..yamada@docomo.example"
    assert address.in_header == '"taro..yamada"@docomo.example'
    assert parse_address('"a b"@ex\u00e4mple.com').in_header == '"a b"@xn--exmple-cua.com'
    assert parse_address("ann@example.com").in_header == "ann@example.com"


def test_a_quoted_local_part_has_its_tag_too():
    assert parse_address('"ceo+x"@example.com').untagged.key == "ceo@example.com"
    assert parse_address('"a b+x"@example.com').untagged.key == '"a b+x"@example.com'


def test_a_text_longer_than_any_address_is_refused_and_not_repeated():
    for text in ("a" * 10**6, "@" * 10**6, "a@" + "b." * 10**6, f"x <{'a' * 10**6}@b>"):
        for read in (parse_address, parse_mailbox):
            with pytest.raises(AddressError) as raised:
                read(text)
            assert len(str(raised.value)) < 400


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
        ("=?utf-8?q?The_=43EO?= <ann@example.com>", "The CEO", "ann@example.com"),
        ('"=?utf-8?b?Q0VP?=" <ann@example.com>', "CEO", "ann@example.com"),
        (r'"a \"b\" c" <ann@example.com>', 'a "b" c', "ann@example.com"),
        ("J. R. Doe <ann@example.com>", "J. R. Doe", "ann@example.com"),
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
        "A (b) <ann@example.com>",
        '"A <ann@example.com>',
        "A [b] <ann@example.com>",
        "a@b <ann@example.com>",
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
