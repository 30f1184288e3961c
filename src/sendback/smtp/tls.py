"""The certificate for STARTTLS: the operator's, or one made on first use."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

_VALID_FOR = timedelta(days=3650)


def server_context(
    certificate: Path | None, key: Path | None, data_dir: Path, hostname: str
) -> ssl.SSLContext:
    """A context for STARTTLS. Without a certificate, a self-signed one is kept in `data_dir`.

    Senders that use TLS when it is offered do not check the name (RFC 7435), so a generated
    certificate serves them. Raises `ssl.SSLError`, `OSError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is None:
        certificate = data_dir / "tls.pem"
        key = None
        if not certificate.exists():
            _generate(certificate, hostname)
    context.load_cert_chain(certificate, key)
    return context


def _generate(file: Path, hostname: str) -> None:
    from cryptography import x509  # noqa: PLC0415 - only on first use
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

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
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    partial = file.with_suffix(f".{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(pem)
    partial.rename(file)
