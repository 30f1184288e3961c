"""An SMTP session with one server: connect, EHLO, STARTTLS, AUTH, then any number of messages.

A failure of the host is a `HostFailedError` (another host may accept the message); a refusal of the
message is a reply.
"""

import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sendback.delivery.dane import DaneError, check_chain
from sendback.delivery.routes import Location
from sendback.errors import SendbackError
from sendback.mail.address import Address
from sendback.smtp_client.connection import (
    Connection,
    PeerError,
    Timeouts,
    TlsError,
    first_to_connect,
)
from sendback.smtp_client.conversation import (
    AuthenticationError,
    Capabilities,
    OutgoingMail,
    RefusedError,
    Stage,
    StageReply,
    authenticate,
    greet,
    hello,
    quit_session,
    request_tls,
    reset,
    transact,
)
from sendback.smtp_client.replies import ServerReply
from sendback.store.outbox.rows import OutboxMessage


class HostFailedError(SendbackError):
    """A host failed at a stage; another one may accept the message."""

    def __init__(self, stage: Stage, reply: str, address: str = "") -> None:
        super().__init__(reply)
        self.stage = stage
        self.reply = reply
        self.address = address


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """The client's side: its EHLO name, its timeouts, the addresses that it connects from."""

    hostname: str
    timeouts: Timeouts
    source_addresses: tuple[str, ...] = ()

    def source_for(self, address: str) -> str | None:
        """Return the source address of the same IP version; None for the system's choice."""
        is_ipv6 = ":" in address
        return next((own for own in self.source_addresses if (":" in own) is is_ipv6), None)


class Session:
    """A session. Create it with `open_session`."""

    def __init__(
        self, location: Location, address: str, connection: Connection, capabilities: Capabilities
    ) -> None:
        self.location = location
        self.address = address
        self.tls = connection.tls.version() if connection.tls else None
        self._connection = connection
        self._capabilities = capabilities

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    @property
    def peer(self) -> str:
        return self.location.hop.peer(self.address)

    async def deliver(self, message: OutboxMessage) -> StageReply | str:
        """Return the server's reply, or text if the server cannot accept this message at all.

        Raises `HostFailedError` when the session ended before a reply.
        """
        recipient, smtputf8 = _recipient(message.recipient)
        capabilities = self._capabilities
        if smtputf8 and "SMTPUTF8" not in capabilities:
            return f"5.6.7 {message.recipient} needs SMTPUTF8, which the server does not offer"
        content = message.content
        if not content.isascii() and "8BITMIME" not in capabilities:
            content = message.fallback or content
        if capabilities.max_size and len(content) > capabilities.max_size:
            return f"5.3.4 the message has {len(content)} octets, more than the server takes"
        envelope = OutgoingMail(recipient, content, smtputf8)
        try:
            deciding = await self._connection.run(transact(capabilities, envelope))
            await self._reset_after(deciding.reply)
        except PeerError as error:
            self._connection.abort()
            raise HostFailedError(error.stage, str(error), self.address) from error
        return deciding

    async def close(self) -> None:
        """Send QUIT, wait for its reply and close the connection."""
        if self._connection.is_open:
            with contextlib.suppress(PeerError):
                await self._connection.run(quit_session())
        self._connection.abort()

    def abort(self) -> None:
        self._connection.abort()

    async def _reset_after(self, reply: ServerReply) -> None:
        """Make the session ready for another message; close it if that is not possible."""
        if reply.ends_session:
            self._connection.abort()
        elif not reply.is_positive:
            try:
                reset_reply = await self._connection.run(reset())
            except PeerError:
                self._connection.abort()
                return
            if not reset_reply.is_positive:
                self._connection.abort()


async def open_session(
    location: Location, addresses: Sequence[str], settings: SessionSettings
) -> Session:
    """Open a session with the first address that connects. Raises `HostFailedError`."""
    try:
        try:
            return await _open(location, addresses, settings, tls=True)
        except TlsError:
            if location.tls.required or location.hop.implicit_tls:
                raise
            # RFC 7435 §3: if opportunistic TLS fails, clear text is used.
            return await _open(location, addresses, settings, tls=False)
    except PeerError as error:
        raise HostFailedError(error.stage, str(error), error.address) from error


async def _open(
    location: Location, addresses: Sequence[str], settings: SessionSettings, *, tls: bool
) -> Session:
    hop = location.hop

    def connect(address: str) -> Coroutine[Any, Any, Connection]:
        return Connection.open(
            address,
            hop.port,
            settings.timeouts,
            local_address=settings.source_for(address),
            tls=location.tls.context if hop.implicit_tls else None,
            server_name=hop.host,
        )

    address, connection = await first_to_connect(addresses, connect)
    try:
        capabilities = await connection.run(greet(settings.hostname))
        if tls and not hop.implicit_tls:
            capabilities = await _protect(connection, capabilities, location, settings)
        _check_certificate(connection, location)
        if hop.login is not None:
            login = authenticate(capabilities, hop.login.username, hop.login.password)
            await connection.run(login)
    except RefusedError as error:
        connection.abort()
        raise HostFailedError(error.refusal.stage, str(error.refusal.reply), address) from error
    except AuthenticationError as error:
        connection.abort()
        raise HostFailedError(Stage.AUTH, str(error), address) from error
    except PeerError as error:
        connection.abort()
        error.address = address
        raise
    except BaseException:
        connection.abort()
        raise
    return Session(location, address, connection, capabilities)


async def _protect(
    connection: Connection,
    capabilities: Capabilities,
    location: Location,
    settings: SessionSettings,
) -> Capabilities:
    if "STARTTLS" not in capabilities:
        if location.tls.required:
            reason = f"the server does not offer STARTTLS, which {location.tls.name} requires"
            raise TlsError(Stage.STARTTLS, reason)
        return capabilities
    try:
        await connection.run(request_tls())
    except RefusedError as error:
        raise TlsError(Stage.STARTTLS, str(error.refusal.reply)) from error
    except PeerError as error:
        raise TlsError(Stage.STARTTLS, error.reason) from error
    await connection.start_tls(location.tls.context, location.tls.server_name or location.hop.host)
    return await connection.run(hello(settings.hostname))


def _check_certificate(connection: Connection, location: Location) -> None:
    """Raise `TlsError` unless the TLSA records, if any, match the server's certificates."""
    if location.tls.tlsa:
        try:
            check_chain(location.tls.tlsa, connection.certificates, location.tls.names)
        except DaneError as error:
            raise TlsError(Stage.STARTTLS, f"DANE: {error}") from error


def _recipient(address: Address) -> tuple[str, bool]:
    """Return the recipient as RCPT has it, and whether it requires SMTPUTF8."""
    if address.needs_smtputf8:
        return str(address), True
    return address.with_ascii_domain, False
