"""A session with one server: connected, greeted, in TLS, authenticated; then many messages.

What a failure means is told apart here: of the host (the next one may do), or of the message.
"""

import contextlib
from dataclasses import dataclass

from sendback.delivery.connection import Connection, Patience, PeerError, TlsError
from sendback.delivery.conversation import (
    Answer,
    AuthenticationError,
    Capabilities,
    Envelope,
    RefusedError,
    Stage,
    ask_for_tls,
    authenticate,
    greet,
    hello,
    quit_session,
    reset,
    transact,
)
from sendback.delivery.routes import Hop
from sendback.mail.address import AddressError, parse_address
from sendback.store.values import OutboxMessage


class HostFailedError(Exception):
    """One host did not take it, another one may: where, and in whose words."""

    def __init__(self, stage: Stage, reply: str) -> None:
        super().__init__(reply)
        self.stage = stage
        self.reply = reply


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What this side is: its EHLO name, its patience, the address that it connects from."""

    hostname: str
    patience: Patience
    source_address: str | None


class Session:
    """Open one with `open_session`."""

    def __init__(
        self, hop: Hop, address: str, connection: Connection, capabilities: Capabilities
    ) -> None:
        self.hop = hop
        self.address = address
        self.tls = connection.tls.version() if connection.tls else None
        self._connection = connection
        self._capabilities = capabilities

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    @property
    def peer(self) -> str:
        return self.hop.peer(self.address)

    async def deliver(self, message: OutboxMessage) -> Answer | str:
        """The peer's answer; text when it cannot take this message at all.

        Raises `HostFailedError` when the session ended before there was an answer.
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
        envelope = Envelope(recipient, content, smtputf8)
        try:
            answer = await self._connection.hold(transact(capabilities, envelope))
            await self._settle(answer)
        except PeerError as error:
            self._connection.abort()
            raise HostFailedError(error.stage, str(error)) from error
        return answer

    async def close(self) -> None:
        """Says goodbye, and does not wait long for an answer."""
        if self._connection.is_open:
            with contextlib.suppress(PeerError):
                await self._connection.hold(quit_session())
        self._connection.abort()

    def abort(self) -> None:
        self._connection.abort()

    async def _settle(self, answer: Answer) -> None:
        """Behind a refusal the session goes on, unless the peer closes it."""
        if answer.reply.ends_session:
            self._connection.abort()
        elif not answer.reply.is_positive:
            try:
                reply = await self._connection.hold(reset())
            except PeerError:
                self._connection.abort()
                return
            if not reply.is_positive:
                self._connection.abort()


async def open_session(hop: Hop, address: str, settings: SessionSettings) -> Session:
    """Raises `HostFailedError`."""
    try:
        try:
            return await _open(hop, address, settings, tls=True)
        except TlsError:
            if hop.tls.required or hop.implicit_tls:
                raise
            # Opportunistic TLS that fails is worth as much as none (RFC 7435 §3).
            return await _open(hop, address, settings, tls=False)
    except PeerError as error:
        raise HostFailedError(error.stage, str(error)) from error


async def _open(hop: Hop, address: str, settings: SessionSettings, *, tls: bool) -> Session:
    connection = await Connection.open(
        address or hop.host,
        hop.port,
        settings.patience,
        local_address=settings.source_address,
        tls=hop.tls.context if hop.implicit_tls else None,
        server_name=hop.host,
    )
    try:
        capabilities = await connection.hold(greet(settings.hostname))
        if tls and not hop.implicit_tls:
            capabilities = await _protect(connection, capabilities, hop, settings)
        if hop.login is not None:
            login = authenticate(capabilities, hop.login.username, hop.login.password)
            await connection.hold(login)
    except RefusedError as error:
        connection.abort()
        answer = error.answer
        raise HostFailedError(answer.stage, str(answer.reply)) from error
    except AuthenticationError as error:
        connection.abort()
        raise HostFailedError(Stage.AUTH, str(error)) from error
    except BaseException:
        connection.abort()
        raise
    return Session(hop, address, connection, capabilities)


async def _protect(
    connection: Connection, capabilities: Capabilities, hop: Hop, settings: SessionSettings
) -> Capabilities:
    if "STARTTLS" not in capabilities:
        if hop.tls.required:
            raise TlsError(
                Stage.STARTTLS, f"the server does not offer STARTTLS, which {hop.tls.name} requires"
            )
        return capabilities
    try:
        await connection.hold(ask_for_tls())
    except RefusedError as error:
        raise TlsError(Stage.STARTTLS, str(error.answer.reply)) from error
    except PeerError as error:
        raise TlsError(Stage.STARTTLS, error.reason) from error
    await connection.start_tls(hop.tls.context, hop.host)
    return await connection.hold(hello(settings.hostname))


def _recipient(text: str) -> tuple[str, bool]:
    """How the recipient is written for a peer, and whether that takes SMTPUTF8."""
    try:
        address = parse_address(text)
    except AddressError:
        return text, False
    if address.needs_smtputf8:
        return str(address), True
    return address.with_ascii_domain, False
