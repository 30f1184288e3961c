"""Signatures and key records as they are read: what is usable, what is not, and why."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.dkim_verification import (
    MAX_FIELD_OCTETS,
    MAX_NAMES,
    BodyForm,
    DkimMail,
    Signature,
    UnusableError,
    UnusableSignature,
    hash_bodies,
    read_key,
)
from tests.partners.steps import assert_linear, steps

AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW = int(AT.timestamp())
GOOD = {
    "v": "1", "a": "rsa-sha256", "c": "relaxed/relaxed", "d": "example.com", "s": "one",
    "h": "From:To", "bh": "YmI=", "b": "Yg==",
}  # fmt: skip
HEADER = b"From: a@example.com\r\nTo: b@example.org\r\nSubject: x\r\n"


def field(**changes):
    tags = {name.rstrip("_"): value for name, value in {**GOOD, **changes}.items()}
    text = "; ".join(f"{name}={value}" for name, value in tags.items() if value is not None)
    return f"DKIM-Signature: {text}\r\n".encode("utf-8", "surrogateescape")


def read(*fields, header=HEADER, at=AT):
    return DkimMail(b"".join(fields) + header).signatures(at)


def reason(*fields):
    (found,) = read(*fields)
    assert isinstance(found, UnusableSignature), found
    return found.reason


def test_a_signature_is_read():
    (found,) = read(field(i="ann@Mail.Example.com", l="12", t=str(NOW), x=str(NOW + 1)))
    assert found.key_name == "one._domainkey.example.com"
    assert (found.domain, found.selector) == ("example.com", "one")
    assert found.identity_domain == "mail.example.com"
    assert (found.signature, found.body_hash) == (b"b", b"bb")
    assert (found.relaxed_header, found.body_form) == (True, BodyForm(True, 12))
    assert found.names == ("from", "to")


@pytest.mark.parametrize(
    ("given", "header", "body"),
    [
        (None, False, False),
        ("simple", False, False),
        ("relaxed", True, False),
        ("simple/relaxed", False, True),
        ("relaxed/simple", True, False),
    ],
)
def test_canonicalizations(given, header, body):
    (found,) = read(field(c=given))
    assert (found.relaxed_header, found.body_form.relaxed) == (header, body)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *(({tag: None}, f"there is no {tag}=") for tag in ("v", "a", "b", "bh", "d", "h", "s")),
        ({"v": "2"}, "v= is not 1"),
        ({"a": "rsa-sha1"}, "a=rsa-sha1 is not valid any more (RFC 8301)"),
        ({"a": "rsa-sha512"}, "a= is not a known algorithm"),
        ({"c": "relaxed/"}, "c= is not a known canonicalization"),
        ({"c": "nowsp"}, "c= is not a known canonicalization"),
        ({"c": "simple/simple/simple"}, "c= is not a known canonicalization"),
        ({"q": "dns/http"}, "q= has no known query method"),
        ({"l": "-1"}, "l= is not a number"),
        ({"l": "1" * 77}, "l= is not a number"),
        ({"l": "١"}, "l= is not a number"),
        ({"h": "To:Subject"}, "From is not signed"),
        ({"h": "From:"}, "h= is not a list of field names"),
        ({"h": "From:A B"}, "h= is not a list of field names"),
        ({"h": "From:" + "x:" * MAX_NAMES + "x"}, f"h= has more than {MAX_NAMES} names"),
        ({"b": ""}, "b= is not base64"),
        ({"b": "A" + " " * 5000 + "!"}, "b= is not base64"),
        ({"b": "A"}, "b= is not base64"),
        ({"bh": "é"}, "bh= is not base64"),
        ({"d": ""}, "d= is not a domain name"),
        ({"d": "example..com"}, "d= is not a domain name"),
        ({"d": "example.com."}, "d= is not a domain name"),
        ({"d": "[192.0.2.1]"}, "d= is not a domain name"),
        ({"d": "exam\x1bple.com"}, "d= is not a domain name"),
        ({"d": "a" * 64 + ".com"}, "d= is not a domain name"),
        ({"d": "a." * 127 + "com"}, "d= is not a domain name"),
        ({"d": "a\u0300\u2488.com"}, "d= is not a domain name"),
        ({"s": ""}, "s= is not a domain name"),
        ({"s": "a" * 70}, "s= is not a domain name"),
        ({"s": "a..b"}, "s= is not a domain name"),
        ({"s": "a b"}, "s= is not a domain name"),
        ({"s": "*"}, "s= is not a domain name"),
        ({"s": ".".join(["a" * 60] * 4)}, "s= and d= make no DNS name"),
        ({"i": "@example.org"}, "i= is not in the domain of d="),
        ({"i": "@notexample.com"}, "i= is not in the domain of d="),
        ({"i": "example.com"}, "i= is not in the domain of d="),
        ({"i": "ann@"}, "i= is not a domain name"),
        ({"t": "soon"}, "t= is not a time"),
        ({"t": str(NOW + 301)}, "it was signed in the future (t=)"),
        ({"x": str(NOW - 301)}, "it has expired (x=)"),
        ({"x": "9" * 13}, "x= is not a time"),
        ({"t": str(NOW), "x": str(NOW - 1)}, "x= is before t="),
        ({"z": "x" * MAX_FIELD_OCTETS}, f"the field is longer than {MAX_FIELD_OCTETS} octets"),
        ({"z": "\udcff"}, "the field is not UTF-8"),
        ({"d_": "example.org"}, "the tag d= occurs twice"),
        ({"9": "x"}, "it is not a list of tags"),
        ({" ": "x"}, "it is not a list of tags"),
    ],
)  # fmt: skip
def test_what_is_not_usable(changes, expected):
    text = field(**changes)
    if "d_" in changes:
        text = field().replace(b"\r\n", b"; d=example.org\r\n")
    assert reason(text) == expected


def test_a_list_of_tags_with_an_empty_one_or_without_any():
    assert reason(b"DKIM-Signature: v=1;; a=b\r\n") == "it is not a list of tags"
    assert reason(b"DKIM-Signature: nonsense\r\n") == "it is not a list of tags"
    assert reason(b"DKIM-Signature:\r\n") == "there is no v="
    assert isinstance(read(field().replace(b"\r\n", b";\r\n"))[0], Signature)


def test_what_is_not_usable_names_its_domain_as_it_is_written():
    (found,) = read(field(d="bad domain.example\x1b", v="3", s="x" * 300))
    assert (found.domain, found.selector) == ("baddomain.example\x1b", "x" * 255)


def test_signers_that_are_unusual_and_right():
    assert read(field(s="_dmarc-like_"))[0].selector == "_dmarc-like_"
    assert read(field(d="Example.COM"))[0].domain == "example.com"
    assert read(field(d="bücher.example"))[0].domain == "xn--bcher-kva.example"
    assert read(field(q="http/x : dns/txt"))[0]
    folded = field(b="Y \r\n\t g=\r\n = ", h="From :\r\n\t To")
    assert read(folded)[0].signature == b"b"
    assert read(folded)[0].names == ("from", "to")


def test_an_old_message_is_judged_by_when_it_was_received():
    expiring = field(x=str(NOW))
    assert isinstance(read(expiring)[0], Signature)
    (late,) = read(expiring, at=AT + timedelta(hours=1))
    assert late.reason == "it has expired (x=)"


def test_five_signatures_are_read():
    found = read(*(field(s=f"s{number}") for number in range(1000)))
    assert [entry.selector for entry in found] == ["s0", "s1", "s2", "s3", "s4"]


# --- what is signed ------------------------------------------------------------------------------


def test_fields_are_selected_from_the_last_to_the_first():
    """RFC 6376 §5.4.2; a name that has no field any more stands for none."""
    header = b"A: 1\r\nFrom: x\r\nA: 2\r\nB: 3\r\nA:  4\r\n 5\r\n"
    mail = DkimMail(field(h="A:B:a:From:C:A:A:B") + header)
    (signature,) = mail.signatures(AT)
    octets = mail.signed_octets(signature)
    assert octets.startswith(b"a:4 5\r\nb:3\r\na:2\r\nfrom:x\r\na:1\r\ndkim-signature:v=1; ")
    assert octets.endswith(b"; b=")


def test_the_simple_form_leaves_the_fields_as_they_are():
    mail = DkimMail(field(c="simple", h="to:FROM") + HEADER)
    (signature,) = mail.signatures(AT)
    octets = mail.signed_octets(signature)
    own = field(c="simple", h="to:FROM", b="")[:-2]
    assert octets == b"To: b@example.org\r\nFrom: a@example.com\r\n" + own


@pytest.mark.parametrize(
    ("written", "hashed"),
    [
        (b"b=Yg==; z=1\r\n", b"b=; z=1"),
        (b"b = \r\n\tY\r\n g==\r\n\t; z=1\r\n", b"b =; z=1"),
        (b"z=b=Yg==; b=Yg==;\r\n", b"z=b=Yg==; b=;"),
        (b"b=Yg==\r\n", b"b="),
    ],
)
def test_the_value_of_b_is_left_out(written, hashed):
    """RFC 6376 §3.7: with all white space around it."""
    rest = field(b=None, c="simple").removesuffix(b"\r\n") + b"; "
    mail = DkimMail(rest + written + HEADER)
    (signature,) = mail.signatures(AT)
    assert mail.signed_octets(signature).endswith(rest + hashed)


def test_a_signature_may_sign_others_and_never_itself():
    first, second = field(h="From:DKIM-Signature", s="first"), field(s="second")
    mail = DkimMail(first + second + HEADER)
    own = mail.signatures(AT)[0]
    octets = mail.signed_octets(own)
    assert octets.count(b"s=second") == 1
    assert octets.count(b"s=first") == 1  # at the end, with an empty b=
    alone = DkimMail(first + HEADER)
    assert alone.signed_octets(alone.signatures(AT)[0]).count(b"s=first") == 1


def test_a_from_field_that_is_not_signed():
    """RFC 6376 §8.15: readers show the first, the signature covers the last."""
    mail = DkimMail(b"From: boss@bank.example\r\n" + field() + HEADER)
    with pytest.raises(UnusableError, match="a From field is not signed"):
        mail.signed_octets(mail.signatures(AT)[0])
    both = DkimMail(b"From: boss@bank.example\r\n" + field(h="From:From") + HEADER)
    assert b"boss@bank.example" in both.signed_octets(both.signatures(AT)[0])


# --- bodies --------------------------------------------------------------------------------------


def sha256(octets):
    return hashlib.sha256(octets).digest()


def test_bodies_are_hashed_once_for_each_form():
    body = b"a  b \r\n\r\nc\r\n\r\n\r\n"
    relaxed, simple = b"a b\r\n\r\nc\r\n", b"a  b \r\n\r\nc\r\n"
    lengths = [None, 0, 1, 5, 5, len(relaxed)]
    forms = {BodyForm(kind, length) for kind in (True, False) for length in lengths}
    read_chunks = []

    def chunks():
        for octet in range(len(body)):
            read_chunks.append(octet)
            yield body[octet : octet + 1]

    found = hash_bodies(forms, chunks())
    for length in lengths:
        assert found[BodyForm(True, length)] == sha256(relaxed[:length])
        assert found[BodyForm(False, length)] == sha256(simple[:length])
    assert len(read_chunks) == len(body)


def test_a_body_that_is_shorter_than_its_signature_says():
    form = BodyForm(True, 4)
    assert hash_bodies({form}, [b"ab\r\n"]) == {
        form: sha256(b"ab\r\n"),
        BodyForm(True): sha256(b"ab\r\n"),
    }
    assert form not in hash_bodies({form}, [b"a\r\n"])
    assert BodyForm(True, 0) in hash_bodies({BodyForm(True, 0)}, [])


def test_no_body_is_read_without_a_signature():
    def chunks():
        raise AssertionError
        yield b""

    assert hash_bodies(set(), chunks()) == {}


# --- keys ----------------------------------------------------------------------------------------

P = base64.b64encode(b"key").decode()


def key(*records, **changes):
    (signature,) = read(field(**changes))
    return read_key([record.encode("utf-8", "surrogateescape") for record in records], signature)


@pytest.mark.parametrize(
    ("record", "testing"),
    [
        (f"v=DKIM1; k=rsa; p={P}", False),
        (f"p={P}", False),
        (f"k=rsa; p={P}; v=DKIM1", False),
        (f"v=DKIM1; h=sha1 : sha256; s=email; t=y:s; n=note; x=unknown; p={P};", True),
        (f"v=DKIM1; s=*; t=s; p={P[:1]} {P[1:]}", False),
    ],
)
def test_keys(record, testing):
    found = key(record)
    assert (found.key_type, found.public, found.is_testing) == ("rsa", b"key", testing)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("", "no key record"),
        ("v=spf1 -all", "no key record"),
        ("v=DKIM1; k=rsa", "no key record"),
        (f"v=DKIM2; p={P}", "no key record"),
        (f"v=DKIM1; p={P}; p={P}", "no key record"),
        (f"v=DKIM1;; p={P}", "no key record"),
        ("v=DKIM1; p=\udcff", "no key record"),
        (f"v=DKIM1; p={P}; n={'x' * 4096}", "no key record"),
        ("v=DKIM1; p=", "the key is revoked"),
        ("v=DKIM1; p=!", "p= is not base64"),
        (f"v=DKIM1; k=ed25519; p={P}", "the key is for k=ed25519"),
        (f"v=DKIM1; h=sha1; p={P}", "the key is not for sha256"),
        (f"v=DKIM1; s=tlsrpt; p={P}", "the key is not for mail"),
    ],
)
def test_records_that_are_no_key_for_it(record, expected):
    with pytest.raises(UnusableError, match=expected):
        key(record)


def test_a_key_for_the_domain_itself():
    """RFC 6376 §3.6.1, t=s."""
    assert key(f"t=s; p={P}", i="ann@example.com")
    with pytest.raises(UnusableError, match="not for subdomains"):
        key(f"t=s; p={P}", i="ann@mail.example.com")


def test_several_records_at_one_name():
    """RFC 6376 §3.6.2.2 leaves it undefined: the order of an answer must not decide."""
    one, other = f"v=DKIM1; p={P}", f"v=DKIM1; k=ed25519; p={P}"
    for records in ([one, other], [other, one], [one, one]):
        with pytest.raises(UnusableError, match="2 key records"):
            key(*records)
    assert key("v=spf1 -all", one, "anything").public == b"key"
    with pytest.raises(UnusableError, match="more than 10 TXT records"):
        key(*["x"] * 10, one)
    with pytest.raises(UnusableError, match="no key record"):
        key()


# --- hostile headers -----------------------------------------------------------------------------

HOSTILE = {
    "b= of blanks": lambda n: field(b="A" + " " * n + "!"),
    "b= of folds": lambda n: field(b="A" + "\r\n " * (n // 3) + "!"),
    "h= of colons": lambda n: field(h="from" + ":" * n),
    "h= of names": lambda n: field(h="from:" + "a:" * (n // 2) + "a"),
    "tags": lambda n: field(z="; ".join(f"t{i}=" for i in range(n // 6))),
    "semicolons": lambda n: field(z=";" * n),
    "equal signs": lambda n: field(z="=" * n),
    "d= of dots": lambda n: field(d="." * n),
    "d= of letters": lambda n: field(d="é" * (n // 2)),
    "s= of letters": lambda n: field(s="a" * n),
    "i= of at signs": lambda n: field(i="@" * n),
    "l= of digits": lambda n: field(l="9" * n),
    "x= of digits": lambda n: field(x="9" * n),
    "signatures": lambda n: field() * (n // 100),
    "fields": lambda n: field(h=":".join(["from"] + ["a"] * 150)) + b"A:\r\n" * (n // 4),
    "long fields": lambda n: field(h="from:a") + b"A: " + b"x \t" * (n // 3) + b"\r\n",
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_the_work_is_linear(shape):
    def work(size):
        mail = DkimMail(HOSTILE[shape](size) + HEADER)
        for entry in mail.signatures(AT):
            if isinstance(entry, Signature):
                mail.signed_octets(entry)

    assert_linear(work, 64 * 1024)
    assert steps(lambda: work(64 * 1024)) < 400_000


@given(st.text(alphabet=" \t\r\n;=:@.abvhdsilqtx019/-é\x00\x1b\u202e", max_size=200))
def test_any_field_is_read(text):
    raw = text.replace("\r", "").replace("\n", "\r\n ").encode()
    for entry in read(b"DKIM-Signature: " + raw + b"\r\n"):
        assert isinstance(entry, UnusableSignature)


@given(st.sampled_from("vacdshbliqtxz"), st.text(max_size=40))
def test_any_tag_is_read(tag, value):
    text = value.replace("\r", "").replace("\n", "").encode("utf-8", "ignore").decode()
    for entry in read(field(**{tag: text})):
        if isinstance(entry, Signature):
            assert len(entry.key_name) <= 253
            assert entry.key_name.isascii()


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_any_records_are_read(records):
    (signature,) = read(field())
    try:
        assert read_key(records, signature).public
    except UnusableError as error:
        assert str(error)
