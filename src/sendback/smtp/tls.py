"""TLS for STARTTLS: the certificate, and the layer between the octets and the SMTP machine.

The layer does no I/O: the connection gives it what it reads and writes what it returns. Everything
that is read behind the STARTTLS command is the layer's, so no octet of a ClientHello can be
taken for a command, however early it comes. (`loop.start_tls` swaps the protocol later, and keeps
256 KiB for each connection.) The same code runs on uvloop and on asyncio's own event loop.
"""

import contextlib
import ssl
from pathlib import Path

from sendback.crypto.certificates import make_certificate

_RECORD_OCTETS = 16 * 1024  # RFC 8446 §5.1


def server_context(
    certificate: Path | None, key: Path | None, data_dir: Path, hostname: str
) -> ssl.SSLContext:
    """A context for STARTTLS. Without a certificate, a self-signed one is kept in `data_dir`.

    Senders that use TLS when it is offered do not check the name (RFC 7435), so a generated
    certificate serves them. Raises `ssl.SSLError`, `OSError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that may renegotiate makes the server compute as often as it likes.
    context.options |= ssl.OP_NO_RENEGOTIATION
    if certificate is None:
        certificate = data_dir / "tls.pem"
        key = None
        if not certificate.exists():
            make_certificate(certificate, hostname, rsa=False)
    context.load_cert_chain(certificate, key)
    return context


class TlsLayer:
    """The server's side of one TLS connection: encrypted octets on one side, plain on the other."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # Whether there may be more to work on without new octets.
        self.has_input = False

    @property
    def pending(self) -> int:
        """How many octets wait in the layer, in either direction."""
        return self._incoming.pending + self._outgoing.pending

    def receive(self, data: bytes) -> None:
        """Take what was read from the client."""
        self._incoming.write(data)
        self.has_input = True

    def shake_hands(self) -> str | None:
        """Go on with the handshake; return the TLS version when it is done.

        Raises `ssl.SSLError`; then `take_output` may have an alert for the client.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self.has_input = False
            return None
        return self._object.version() or "TLS"

    def read(self) -> bytes:
        """Return the next plain octets, one record at most; nothing when more must be read.

        Raises `ssl.SSLError`, when the client has closed its side too.
        """
        try:
            data = self._object.read(_RECORD_OCTETS)
        except ssl.SSLWantReadError:
            data = b""
        self.has_input = bool(data)
        return data

    def write(self, data: bytes) -> None:
        """Encrypt what is for the client."""
        self._object.write(data)

    def close(self) -> None:
        """Say that nothing follows (RFC 8446 §6.1). The client's own close is not waited for."""
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()

    def take_output(self) -> bytes:
        """Return what is to be written to the client now."""
        return self._outgoing.read()
