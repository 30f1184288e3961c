"""TLS for STARTTLS: the certificate, and the layer between the octets and the SMTP machine.

The layer does no I/O: the connection passes in what it reads and sends what the layer returns. All
octets after the STARTTLS command go to the layer, so no octet of an early ClientHello is parsed as
a command. (`loop.start_tls` swaps the protocol later, and keeps 256 KiB for each connection.) The
same code runs on uvloop and on asyncio's own event loop.
"""

import contextlib
import ssl
from pathlib import Path

from sendback.crypto.certificates import make_certificate

_RECORD_OCTETS = 16 * 1024  # RFC 8446 §5.1


def server_context(
    certificate: Path | None, key: Path | None, data_dir: Path, hostname: str
) -> ssl.SSLContext:
    """Return a context for STARTTLS. Without `certificate`, use a self-signed one in `data_dir`.

    Senders with opportunistic TLS do not verify the certificate (RFC 7435).
    Raises `ssl.SSLError`, `OSError`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that may renegotiate makes the server compute as often as it likes.
    context.options |= ssl.OP_NO_RENEGOTIATION
    if certificate is None:
        certificate = data_dir / "tls.pem"
        key = None
        if not certificate.exists():
            make_certificate(certificate, hostname)
    context.load_cert_chain(certificate, key)
    return context


class TlsLayer:
    """The server's side of one TLS connection: encrypted octets on one side, plain on the other."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # Whether `read` or `shake_hands` may progress without new octets.
        self.has_input = False

    @property
    def pending(self) -> int:
        """The number of octets buffered in the layer, in both directions."""
        return self._incoming.pending + self._outgoing.pending

    def receive(self, data: bytes) -> None:
        """Take encrypted octets from the client."""
        self._incoming.write(data)
        self.has_input = True

    def shake_hands(self) -> str | None:
        """Continue the handshake; return the TLS version when it is done, else None.

        Raises `ssl.SSLError`; then `take_output` may have an alert for the client.
        """
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            self.has_input = False
            return None
        return self._object.version() or "TLS"

    def read(self) -> bytes:
        """Return the next plain octets, one record at most; none when more must be read.

        Raises `ssl.SSLError`, when the client has closed its side too.
        """
        try:
            data = self._object.read(_RECORD_OCTETS)
        except ssl.SSLWantReadError:
            data = b""
        self.has_input = bool(data)
        return data

    def write(self, data: bytes) -> None:
        """Encrypt octets for the client."""
        self._object.write(data)

    def close(self) -> None:
        """Send close_notify (RFC 8446 §6.1), without waiting for the client's."""
        with contextlib.suppress(ssl.SSLError):
            self._object.unwrap()

    def take_output(self) -> bytes:
        """Return the encrypted octets to send to the client now."""
        return self._outgoing.read()
