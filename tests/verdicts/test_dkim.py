"""DKIM: mail of three signers (dkimpy, Perl's Mail::DKIM, ours), and dkimpy as another verifier."""

import base64
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import dkim
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from hypothesis import assume, given
from hypothesis import strategies as st

from sendback.mail.dkim import SigningKey, sign
from sendback.net.dns_answers import DnsFailedError
from sendback.verdicts.dkim import check_dkim
from sendback.verdicts.look_ups import Budget
from tests.conftest import need
from tests.partners.contents import in_file
from tests.verdicts.mails import mail_to_check

SIGNER = Path(__file__).parents[1] / "partners/dkim_signer.pl"
AT = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MAIL = (
    b"Received: from x\r\n by y; Sun, 1 Mar 2026 12:00:00 +0000\r\n"
    b"From: Ann <ann@sender.example>\r\n"
    b"To: bob@example.com\r\n"
    b"Subject: Lunch \t on\r\n  Friday?\r\n"
    b"\r\n"
    b"Are you  free\ton Friday? \r\n\r\n.\r\n\r\n"
)


def spki(private):
    return private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def pem(private):
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED25519_PUBLIC = ED25519.public_key().public_bytes(
    serialization.Encoding.Raw, serialization.PublicFormat.Raw
)
ED25519_SEED = ED25519.private_bytes(
    serialization.Encoding.Raw,
    serialization.PrivateFormat.Raw,
    serialization.NoEncryption(),
)


def record(public, kind="rsa"):
    return f"v=DKIM1; k={kind}; p=".encode() + base64.b64encode(public)


KEYS = {
    "rsa": [record(spki(RSA))],
    "pkcs1": [
        record(
            RSA.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.PKCS1
            )
        )
    ],
    "ed": [record(ED25519_PUBLIC, "ed25519")],
    "absent": [],
    "revoked": [b"v=DKIM1; p="],
    "testing": [b"t=y; p=" + base64.b64encode(spki(RSA))],
    "other": [
        record(spki(rsa.generate_private_key(public_exponent=65537, key_size=1024))),
    ],
    "twice": [record(spki(RSA))] * 2,
    "ec": [record(spki(ec.generate_private_key(ec.SECP256R1())))],
    "short-ed": [record(ED25519_PUBLIC[:-1], "ed25519")],
    "nonsense": [b"v=DKIM1; p=bm9uc2Vuc2U="],
}


class Dns:
    """Answers from `KEYS`, and remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def query(self, name, kind, seconds):
        self.asked.append((name, kind))
        selector = name.partition(".")[0]
        if selector == "silent":
            raise DnsFailedError("no answer in time")
        return [
            SimpleNamespace(strings=[text[:200], text[200:]]) for text in KEYS.get(selector, ())
        ]


def check(content, *, dns=None):
    """The results, and the lines that explain them."""
    notes = []
    mail = content
    if isinstance(content, bytes):  # dkimpy signs by the machine's clock
        mail = mail_to_check(content, received_at=datetime.now(UTC))
    found = check_dkim(mail, Budget(dns or Dns(), 5.0), notes.append)
    return [signature.result for signature in found], notes


def by_us(mail, selector="rsa", domain="sender.example"):
    if selector in {"ed", "short-ed"}:
        key = SigningKey(domain, selector, "ed25519-sha256", ED25519.sign)
    else:

        def make(octets):
            return RSA.sign(octets, padding.PKCS1v15(), hashes.SHA256())

        key = SigningKey(domain, selector, "rsa-sha256", make)
    return sign(mail, [key], AT) + mail


def by_dkimpy(mail, form=(b"relaxed", b"relaxed"), algorithm=b"rsa-sha256", **options):
    selector, key = b"rsa", pem(RSA)
    if algorithm == b"ed25519-sha256":
        selector, key = b"ed", base64.b64encode(ED25519_SEED)
    field = dkim.DKIM(mail).sign(
        selector, b"sender.example", key, signature_algorithm=algorithm, canonicalize=form,
        **options,
    )  # fmt: skip
    return field + mail


def by_perl(mail, tmp_path):
    need(
        "Mail::DKIM",
        available=subprocess.run(
            ["perl", "-MMail::DKIM", "-e", "1"], capture_output=True
        ).returncode
        == 0,
    )
    file = tmp_path / "key.pem"
    file.write_bytes(pem(RSA))
    command = ["perl", str(SIGNER), "sender.example", "rsa", str(file)]
    return subprocess.run(command, input=mail, capture_output=True, check=True).stdout


def dkimpy_agrees(content, number=0):
    def look_up(name, timeout=5):
        return next(iter(KEYS.get(name.decode().partition(".")[0], ())), None)

    try:
        return bool(dkim.DKIM(content).verify(number, dnsfunc=look_up))
    except Exception:  # noqa: BLE001 - it raises whatever its parsers raise
        return False


ALGORITHMS = [b"rsa-sha256", b"ed25519-sha256"]
FORMS = [(header, body) for header in (b"simple", b"relaxed") for body in (b"simple", b"relaxed")]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [False, True])
def test_what_dkimpy_signed_verifies(form, algorithm, length):
    signed = by_dkimpy(MAIL, form, algorithm, length=length)
    assert check(signed) == (["pass"], [])
    appended = signed + b"appended\r\n"
    assert check(appended)[0] == (["pass"] if length else ["fail"])


def test_what_perl_signed_verifies(tmp_path):
    signed = by_perl(MAIL, tmp_path)
    assert check(signed) == (["pass"], [])
    assert check(signed.replace(b"Are", b"Art"))[0] == ["fail"]


@pytest.mark.parametrize("selector", ["rsa", "ed", "pkcs1", "testing"])
def test_what_we_signed_verifies(selector):
    dns = Dns()
    assert check(by_us(MAIL, selector), dns=dns) == (["pass"], [])
    assert dns.asked == [(f"{selector}._domainkey.sender.example", "TXT")]


@pytest.mark.parametrize(
    ("selector", "result", "reason"),
    [
        ("absent", "permerror", "no key record at absent._domainkey.sender.example"),
        ("revoked", "permerror", "the key is revoked"),
        ("nonsense", "permerror", "the published key cannot be used"),
        ("other", "fail", "it does not verify"),
        ("twice", "permerror", "2 key records at twice._domainkey.sender.example"),
        ("ec", "permerror", "it is not an RSA key"),
        ("short-ed", "permerror", "the published key cannot be used"),
        ("silent", "temperror", "DNS: no answer in time"),
    ],
)
def test_keys_that_do_not_fit(selector, result, reason):
    (found,), (note,) = check(by_us(MAIL, selector))
    assert found == result
    assert note.startswith(f"dkim {result} of d=sender.example s={selector}: ")
    assert reason in note


def test_a_domain_that_is_testing():
    """RFC 6376 §3.6.1, t=y: a signature that fails is as good as none."""
    signed = by_us(MAIL, "testing").replace(b"Subject: Lunch", b"Subject: Dinner")
    assert check(signed)[0] == ["neutral"]


@pytest.mark.parametrize(("bits", "allowed"), [(1024, True), (4096, True), (4104, False)])
def test_the_sizes_of_rsa_keys(bits, allowed, monkeypatch):
    """RFC 8301 §3.2."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    monkeypatch.setitem(KEYS, "sized", [record(spki(key))])
    signing = SigningKey(
        "sender.example",
        "sized",
        "rsa-sha256",
        lambda octets: key.sign(octets, padding.PKCS1v15(), hashes.SHA256()),
    )
    results, notes = check(sign(MAIL, [signing], AT) + MAIL)
    assert results == (["pass"] if allowed else ["permerror"])
    if not allowed:
        assert f"the key has {bits} bits" in notes[0]


def test_a_key_of_512_bits(monkeypatch):
    """RFC 8301 §3.2: by hand, since no library makes them any more."""
    der = bytes.fromhex(
        "305c300d06092a864886f70d0101010500034b003048024100"
        "c5062b58d8539c765e1e5dbaf14cf75dd56c2e13105fecfd1a930bbb5948ff32"
        "8f126abe779359ca59bca752c308d281573bc6178b6c0fef7dc445e4f826430b"
        "0203010001"
    )
    monkeypatch.setitem(KEYS, "small", [record(der)])
    results, notes = check(by_us(MAIL, "small"))
    assert results == ["permerror"]
    assert "512 bits" in notes[0]


def test_nothing_is_asked_when_a_name_is_none():
    dns = Dns()
    assert check(by_us(MAIL, "a" * 70), dns=dns)[0] == ["permerror"]
    assert check(by_us(MAIL, "rsa", "a" * 64 + ".example"), dns=dns)[0] == ["permerror"]
    assert dns.asked == []


def test_the_key_is_looked_up_before_anything_is_compared():
    """RFC 6376 §6.1: what cannot be looked up is not known, whatever the body is."""
    changed = by_us(MAIL, "silent").replace(b"Are you", b"Art thou")
    assert check(changed)[0] == ["temperror"]


def test_the_authors_keys_are_looked_up_first():
    """Or the names of others, whose choice is the sender's, could use up the time for these."""
    dns = Dns()
    mail = MAIL.replace(b"ann@sender.example", b"ann@news.sender.example")
    others = by_us(by_us(mail, "absent", "sender.example"), "silent", "other.example")
    results, _ = check(by_us(others, "silent", "third.example"), dns=dns)
    assert [name.partition("._domainkey.")[2] for name, _ in dns.asked] == [
        "sender.example", "third.example", "other.example",
    ]  # fmt: skip
    assert results == ["temperror", "temperror", "permerror"]


def test_each_signature_has_a_result_of_its_own():
    bad = b"DKIM-Signature: v=1; a=rsa-sha256; d=x\x1b[31m; s=y; h=from; bh=x; b=y\r\n"
    mail = by_us(by_us(by_us(MAIL, "silent")), "absent")
    results, notes = check(bad + mail)
    assert results == ["permerror", "permerror", "pass", "temperror"]
    assert len(notes) == 3


def test_the_body_is_not_read_without_a_key(tmp_path):
    signed = mail_to_check(by_us(MAIL, "absent"))
    content = in_file(signed.content.header, tmp_path / "gone", 100)
    results, _ = check(replace(signed, content=content))
    assert results == ["permerror"]


def test_a_body_that_is_not_there(tmp_path):
    signed = mail_to_check(by_us(MAIL))
    content = in_file(signed.content.header, tmp_path / "gone", 100)
    results, notes = check(replace(signed, content=content))
    assert results == ["temperror"]
    assert "gone is not there any more" in notes[0]


def test_a_body_in_a_file(tmp_path):
    large = MAIL + b"x  y\t \r\n" * 100_000
    signed = mail_to_check(by_us(large))
    file = tmp_path / "body"
    file.write_bytes(signed.content.body)
    content = in_file(signed.content.header, file, signed.content.body_size)
    assert check(replace(signed, content=content))[0] == ["pass"]


# --- the same as another verifier ----------------------------------------------------------------

_TEXT = st.text("ab .\t=;:-é", max_size=30)
_HEADERS = st.lists(
    st.tuples(st.sampled_from(["Subject", "To", "X-A", "Date", "subject", "Cc"]), _TEXT),
    max_size=6,
)
_BODIES = st.lists(_TEXT, max_size=6).map(lambda lines: "".join(f"{x}\r\n" for x in lines).encode())


@st.composite
def mails(draw):
    fields = [(name, value.strip()) for name, value in draw(_HEADERS)]
    fields.insert(draw(st.integers(0, len(fields))), ("From", "ann@sender.example"))
    folds = draw(st.sampled_from([" ", "\r\n ", "\r\n\t", "  "]))
    header = "".join(f"{name}: {value.replace(' ', folds)}\r\n" for name, value in fields)
    # A line of blanks only is folding that has no text: RFC 5322 §3.2.2 forbids making it.
    assume(not any(line and not line.strip() for line in header.split("\r\n")))
    return header.encode() + b"\r\n" + draw(_BODIES)


@given(mails(), st.sampled_from(FORMS), st.booleans(), st.sampled_from(ALGORITHMS))
def test_any_mail_that_dkimpy_signs_verifies(mail, form, length, algorithm):
    signed = by_dkimpy(mail, form, algorithm, length=length)
    assert dkimpy_agrees(signed)
    assert check(signed) == (["pass"], [])


@given(mails(), st.sampled_from(["rsa", "ed"]))
def test_any_mail_that_we_sign_verifies(mail, selector):
    signed = by_us(mail, selector)
    assert dkimpy_agrees(signed)
    assert check(signed) == (["pass"], [])


@given(mails(), st.sampled_from(FORMS), st.booleans(), st.data())
def test_a_changed_mail_has_the_same_result_as_by_dkimpy(mail, form, length, data):
    signed = by_dkimpy(mail, form, b"ed25519-sha256", length=length)
    place = data.draw(st.integers(0, len(signed) - 1))
    replacement = data.draw(st.sampled_from([b"", b" ", b"a", b"=", b"\x80", b"9", b"\t "]))
    # Bare line ends are refused by SMTP; dkimpy takes them for CRLF.
    assume(signed[place : place + 1] not in {b"\r", b"\n"})
    changed = signed[:place] + replacement + signed[place + 1 :]
    # What one changed octet makes of a field's beginning is read differently by the two.
    assume(changed.count(b"From:") == signed.count(b"From:"))
    assume(signed.count(b"DKIM-Signature:") == changed.count(b"DKIM-Signature:"))
    header = mail_to_check(changed).content.header
    # dkimpy does not know the obsolete syntax of fields (RFC 5322 §4.5.3).
    assume(not re.search(rb"^[!-9;-~]+[ \t]+:", header, re.MULTILINE))
    assume(len(header) == changed.index(b"\r\n\r\n") + 2)
    assert (check(changed)[0] == ["pass"]) == dkimpy_agrees(changed)
