"""Signing a 5 KB bounce with DKIM, in microseconds; dkimpy and a bare signature beside it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import dkim
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from bench.common import row
from sendback.mail.dkim import SigningKey, sign
from sendback.service.identities.signing import signer

ROUNDS = 5
_HEADER = (
    b"Date: Sun, 1 Mar 2026 12:00:00 +0000\r\nFrom: mailer-daemon@example.com\r\n"
    b"To: ann@sender.example\r\nMessage-ID: <x@example.com>\r\nSubject: Delivery Status "
    b"Notification (Failure)\r\nMIME-Version: 1.0\r\nAuto-Submitted: auto-replied\r\n"
    b"Content-Type: multipart/report; boundary=x; report-type=delivery-status\r\n\r\n"
)
_MAIL = _HEADER + (b"This line has words and  spaces, as the text of a bounce has them. x\r\n") * 70


def main() -> None:
    print(f"DKIM signature of a message of {len(_MAIL):,} octets")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    ours = row("Sendback, RSA-2048", _times(_sendback(key, "rsa-sha256"), 1000), "µs")
    row("Sendback, Ed25519", _times(_sendback(_ed25519(), "ed25519-sha256"), 1000), "µs")
    theirs = row("dkimpy, RSA-2048", _times(_dkimpy(key), 50), "µs")
    scheme, algorithm = padding.PKCS1v15(), hashes.SHA256()
    bare = row(
        "OpenSSL's bare RSA-2048", _times(lambda: key.sign(b"x", scheme, algorithm), 1000), "µs"
    )
    print(f"  ratio dkimpy / Sendback: {theirs / ours:.1f}; Sendback / bare: {ours / bare:.2f}")


def _times(call: Callable[[], object], count: int) -> list[float]:
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(count):
            call()
        found.append((time.perf_counter() - start) / count * 1e6)
    return found


def _sendback(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, algorithm: str
) -> Callable[[], object]:
    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    make = signer(private, ed25519=algorithm.startswith("ed"))
    ready = [SigningKey("example.com", "selector", algorithm, make)]
    now = datetime.now(UTC)
    return lambda: sign(_MAIL, ready, now)


def _ed25519() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def _dkimpy(key: rsa.RSAPrivateKey) -> Callable[[], object]:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    canonical = (b"relaxed", b"relaxed")
    return lambda: dkim.sign(_MAIL, b"selector", b"example.com", pem, canonicalize=canonical)


if __name__ == "__main__":
    main()
