"""The octets of one connection: the socket, and TLS on it once that has begun."""

import asyncio
import ssl

from sendback.smtp.tls import TlsLayer

# Octets that wait in the process for a client to read them; the kernel has more.
_WRITE_BUFFER = 16 * 1024
# How long a client may take to read its last reply.
_CLOSE_SECONDS = 5.0


class Channel:
    """The transport and the TLS layer of one client.

    `handshake_began` is the moment at which the TLS handshake began, or None when none is in
    progress. `is_writable` is False while the client does not read its replies.
    """

    __slots__ = (
        "_is_paused",
        "_loop",
        "_transport",
        "handshake_began",
        "is_closing",
        "is_writable",
        "tls",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = transport
        self._is_paused = False
        self.tls: TlsLayer | None = None
        self.handshake_began: float | None = None
        self.is_closing = False
        self.is_writable = True
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)

    @property
    def is_lost(self) -> bool:
        """Whether the socket is closed."""
        return self._transport is None

    @property
    def buffered(self) -> int:
        """The number of octets in the buffers of the transport and of TLS."""
        unsent = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return unsent + (self.tls.pending if self.tls is not None else 0)

    @property
    def has_input(self) -> bool:
        """Whether TLS has octets that are not processed."""
        return self.tls is not None and self.tls.has_input

    def lose(self) -> None:
        """The event loop has closed the socket."""
        self._transport = None
        self.is_closing = True

    # --- TLS ------------------------------------------------------------------------------

    def start_tls(self, context: ssl.SSLContext, now: float) -> None:
        """Treat everything that is read from now on as TLS."""
        self.tls = TlsLayer(context)
        self.handshake_began = now

    def shake_hands(self, tls: TlsLayer) -> str | None:
        """Continue the handshake; return the TLS version when it is done.

        Raises `ssl.SSLError`; the connection is closed then.
        """
        try:
            version = tls.shake_hands()
        except ssl.SSLError:
            self._close_broken(tls)
            raise
        self._send(tls.take_output())
        if version is not None:
            self.handshake_began = None
        return version

    def decrypt(self) -> bytes:
        """Return the next plain octets. Raises `ssl.SSLError`; the connection is closed then."""
        if self.tls is None:
            return b""
        try:
            return self.tls.read()
        except ssl.SSLZeroReturnError:  # the client has closed its side
            self.close()
            return b""
        except ssl.SSLError:
            self._close_broken(self.tls)
            raise

    def _close_broken(self, tls: TlsLayer) -> None:
        self._send(tls.take_output())  # the alert
        self.is_closing = True
        self._close_transport()

    # --- the socket -----------------------------------------------------------------------

    def write(self, octets: bytes) -> None:
        """Send octets, through TLS once that has begun."""
        if self.tls is not None:
            self.tls.write(octets)
            octets = self.tls.take_output()
        self._send(octets)

    def _send(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def set_reading(self, *, paused: bool) -> None:
        """Pause or resume reading from the socket."""
        if self._transport is None or self.is_closing or paused == self._is_paused:
            return
        self._is_paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    @property
    def is_paused(self) -> bool:
        """Whether reading is paused."""
        return self._is_paused

    def close(self) -> None:
        """Close once everything is sent."""
        self.is_closing = True
        if self.tls is not None:
            self.tls.close()
            self._send(self.tls.take_output())
        self._close_transport()

    def _close_transport(self) -> None:
        if self._transport is None:
            return
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(_CLOSE_SECONDS, self.abort)

    def abort(self) -> None:
        """Close at once, whatever is unsent."""
        self.is_closing = True
        if self._transport is not None:
            self._transport.abort()
