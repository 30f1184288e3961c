"""DKIM signatures: the standard's own examples, and verifiers by others."""

import base64
from datetime import UTC, datetime

import dkim
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from sendback.mail.dkim import SIGNED, SigningKey, sign

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
MAIL = (
    b"Date: Sun, 1 Mar 2026 12:00:00 +0000\r\n"
    b"From: Mail Delivery Subsystem <mailer-daemon@example.com>\r\n"
    b"To: ann@sender.example\r\n"
    b"Subject: Delivery Status\r\n  Notification\t(Failure) \r\n"
    b"MIME-Version: 1.0\r\n"
    b"\r\n"
    b"This message  could not\tbe delivered. \r\n"
    b"\r\n"
    b".\r\n"
    b"\r\n\r\n"
)

_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_ED25519 = ed25519.Ed25519PrivateKey.generate()


def _rsa_key():
    public = _RSA.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def make(octets):
        return _RSA.sign(octets, padding.PKCS1v15(), hashes.SHA256())

    return SigningKey("example.com", "one", "rsa-sha256", make), b"v=DKIM1; k=rsa; p=" + (
        base64.b64encode(public)
    )


def _ed25519_key():
    public = _ED25519.public_key().public_bytes(
        serialization.Encoding.Raw, serialization.PublicFormat.Raw
    )
    key = SigningKey("example.com", "two", "ed25519-sha256", _ED25519.sign)
    return key, b"v=DKIM1; k=ed25519; p=" + base64.b64encode(public)


KEYS = {"one": _rsa_key(), "two": _ed25519_key()}


def verifies(mail, number=0):
    """dkimpy's word on one of the signatures, the first being 0."""

    def lookup(name, timeout=5):
        return KEYS[name.decode().partition(".")[0]][1]

    try:
        return dkim.DKIM(mail).verify(number, dnsfunc=lookup)
    except dkim.ValidationError:
        return False


def signed(mail, *names):
    return sign(mail, [KEYS[name][0] for name in names], NOW) + mail


@pytest.mark.parametrize("name", ["one", "two"])
def test_another_verifier_agrees(name):
    assert verifies(signed(MAIL, name))


def test_both_algorithms_on_one_message():
    mail = signed(MAIL, "one", "two")
    assert mail.count(b"DKIM-Signature:") == 2
    assert verifies(mail, 0)
    assert verifies(mail, 1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"could not", b"could"),
        (b"ann@sender", b"bob@sender"),
        (b"Subject:", b"Subject: x\r\nSubject:"),
        (b"MIME-Version", b"From: forged@example.com\r\nMIME-Version"),
        (b"MIME-Version", b"Cc: x@example.com\r\nMIME-Version"),
        (b"MIME-Version", b"Content-Type: text/html\r\nMIME-Version"),
    ],
)
def test_what_is_changed_or_added_is_noticed(old, new):
    """Also a field that was not there: it is signed as absent."""
    mail = signed(MAIL, "one")
    start = mail.index(b"\r\nDate:")
    assert old in mail[start:]
    assert not verifies(mail[:start] + mail[start:].replace(old, new, 1))


def test_white_space_may_change_on_the_way():
    mail = signed(MAIL, "one")
    assert verifies(mail.replace(b"could not\tbe", b"could not be") + b"\r\n\r\n")


@given(st.lists(st.tuples(st.sampled_from(SIGNED), st.text("ab \t", max_size=20)), max_size=8))
def test_any_header_verifies(fields):
    header = "".join(f"{name}: {value}\r\n" for name, value in fields if name != "From")
    mail = b"From: a@example.com\r\n" + header.encode() + b"\r\nbody\r\n"
    assert verifies(signed(mail, "two"))


def test_the_field_is_folded():
    field = sign(MAIL, [KEYS["one"][0]], NOW)
    assert max(map(len, field.split(b"\r\n"))) <= 78
    assert b"t=1772366400;" in field
