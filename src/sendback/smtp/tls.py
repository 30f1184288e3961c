"""The certificate for STARTTLS: the operator's, or one made on first use."""

import ssl
from pathlib import Path

from sendback.service.certificates import make_certificate


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
            make_certificate(certificate, hostname, rsa=False)
    context.load_cert_chain(certificate, key)
    return context
