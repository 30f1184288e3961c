"""Self-signed certificates."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sendback.crypto.private_files import create_private

_VALID_FOR = timedelta(days=3650)


def make_certificate(file: Path, hostname: str) -> None:
    """Write a key (P-256) and its self-signed certificate into one private PEM file.

    An existing file is not changed. Raise `OSError`.
    """
    create_private(file, new_certificate(hostname, rsa=False))


def new_certificate(hostname: str, *, rsa: bool) -> bytes:
    """Return a new key (RSA-2048 or P-256) and its self-signed certificate, as PEM."""
    from cryptography import x509  # noqa: PLC0415 - only on first use
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa as rsa_keys  # noqa: PLC0415

    key: ec.EllipticCurvePrivateKey | rsa_keys.RSAPrivateKey
    if rsa:
        key = rsa_keys.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)
