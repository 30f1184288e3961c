"""A session with one server: connected, greeted, in TLS, authenticated; then many messages.

What a failure means is told apart here: of the host (the next one may do), or of the message.
"""

import contextlib
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sendback.delivery.connection import (
    Connection,
    Patience,
    PeerError,
    TlsError,
    first_to_connect,
)
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
from sendback.delivery.dane import DaneError, check_chain
from sendback.delivery.routes import Location
from sendback.mail.address import AddressError, parse_address
from sendback.store.outbox.rows import OutboxMessage


class HostFailedError(Exception):
    """One host did not take it, another one may: where, and in whose words."""

    def __init__(self, stage: Stage, reply: str, address: str = "") -> None:
        super().__init__(reply)
        self.stage = stage
        self.reply = reply
        self.address = address


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What this side is: its EHLO name, its patience, the addresses that it connects from."""

    hostname: str
    patience: Patience
    source_addresses: tuple[str, ...] = ()

    def source_for(self, address: str) -> str | None:
        """The one of the same kind; None: the system's choice."""
        is_ipv6 = ":" in address
        return next((own for own in self.source_addresses if (":" in own) is is_ipv6), None)


class Session:
    """Open one with `open_session`."""

    def __init__(
        self, place: Location, address: str, connection: Connection, capabilities: Capabilities
    ) -> None:
        self.place = place
        self.address = address
        self.tls = connection.tls.version() if connection.tls else None
        self._connection = connection
        self._capabilities = capabilities

    @property
    def is_open(self) -> bool:
        return self._connection.is_open

    @property
    def peer(self) -> str:
        return self.place.hop.peer(self.address)

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
            raise HostFailedError(error.stage, str(error), self.address) from error
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


async def open_session(
    place: Location, addresses: Sequence[str], settings: SessionSettings
) -> Session:
    """With whichever of the addresses answers first. Raises `HostFailedError`."""
    try:
        try:
            return await _open(place, addresses, settings, tls=True)
        except TlsError:
            if place.tls.required or place.hop.implicit_tls:
                raise
            # Opportunistic TLS that fails is worth as much as none (RFC 7435 §3).
            return await _open(place, addresses, settings, tls=False)
    except PeerError as error:
        raise HostFailedError(error.stage, str(error), error.address) from error


async def _open(
    place: Location, addresses: Sequence[str], settings: SessionSettings, *, tls: bool
) -> Session:
    hop = place.hop

    def connect(address: str) -> Coroutine[Any, Any, Connection]:
        return Connection.open(
            address,
            hop.port,
            settings.patience,
            local_address=settings.source_for(address),
            tls=place.tls.context if hop.implicit_tls else None,
            server_name=hop.host,
        )

    address, connection = await first_to_connect(addresses, connect)
    try:
        capabilities = await connection.hold(greet(settings.hostname))
        if tls and not hop.implicit_tls:
            capabilities = await _protect(connection, capabilities, place, settings)
        _check_certificate(connection, place)
        if hop.login is not None:
            login = authenticate(capabilities, hop.login.username, hop.login.password)
            await connection.hold(login)
    except RefusedError as error:
        connection.abort()
        answer = error.answer
        raise HostFailedError(answer.stage, str(answer.reply), address) from error
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
    return Session(place, address, connection, capabilities)


async def _protect(
    connection: Connection, capabilities: Capabilities, place: Location, settings: SessionSettings
) -> Capabilities:
    if "STARTTLS" not in capabilities:
        if place.tls.required:
            reason = f"the server does not offer STARTTLS, which {place.tls.name} requires"
            raise TlsError(Stage.STARTTLS, reason)
        return capabilities
    try:
        await connection.hold(ask_for_tls())
    except RefusedError as error:
        raise TlsError(Stage.STARTTLS, str(error.answer.reply)) from error
    except PeerError as error:
        raise TlsError(Stage.STARTTLS, error.reason) from error
    await connection.start_tls(place.tls.context, place.tls.server_name or place.hop.host)
    return await connection.hold(hello(settings.hostname))


def _check_certificate(connection: Connection, place: Location) -> None:
    """Against the TLSA records, where there are any."""
    if place.tls.tlsa:
        try:
            check_chain(place.tls.tlsa, connection.certificates, place.tls.names)
        except DaneError as error:
            raise TlsError(Stage.STARTTLS, f"DANE: {error}") from error


def _recipient(text: str) -> tuple[str, bool]:
    """How the recipient is written for a peer, and whether that takes SMTPUTF8."""
    try:
        address = parse_address(text, any_dots=True)
    except AddressError:
        return text, False
    if address.needs_smtputf8:
        return str(address), True
    return address.with_ascii_domain, False
