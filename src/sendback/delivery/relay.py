"""Delivery through one relay by SMTP, over connections that are kept.

STARTTLS is used when it is offered. With a user and password in the relay's URL, they are sent
only inside TLS with a valid certificate, or to loopback. What the peer says decides: 4xx, no
connection and no answer are temporary, 5xx is permanent. The reverse-path is always null
(RFC 3464 §2), and a relay that refuses `<>` is never tried with another sender.
"""

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass

import aiosmtplib
from aiosmtplib.errors import (
    SMTPAuthenticationError,
    SMTPException,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from sendback.delivery.transports import Result
from sendback.mail.address import AddressError, parse_address
from sendback.store.values import OutboxMessage, Outcome


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Where the relay is; `timeout` in seconds for each command; `verify` wants valid TLS."""

    host: str
    port: int
    hostname: str
    username: str | None
    password: str | None
    connections: int
    timeout: float
    verify: bool

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Relay:
    """Delivers through the relay; keeps up to `connections` open and uses them in turn."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings
        self._peer = f"{settings.host}:{settings.port}"
        self._free: list[aiosmtplib.SMTP] = []
        self._places = asyncio.Semaphore(settings.connections)
        self._must_verify = settings.verify or (
            settings.username is not None and not settings.is_loopback
        )
        self._context = _client_context(verify=self._must_verify)

    async def deliver(self, message: OutboxMessage) -> Result:
        async with self._places:
            kept = self._free.pop() if self._free else None
            if kept is not None:
                try:
                    return await self._send(kept, message)
                except SMTPServerDisconnected:
                    kept.close()  # it was kept too long; a new one is asked before judging
                except (SMTPException, OSError) as error:
                    return self._failed(kept, error)
            return await self._deliver_anew(message)

    async def close(self) -> None:
        connections, self._free = self._free, []
        for client in connections:
            try:
                await client.quit(timeout=1)
            except (SMTPException, OSError):
                client.close()

    async def _deliver_anew(self, message: OutboxMessage) -> Result:
        client = self._client()
        try:
            await self._connect(client)
            return await self._send(client, message)
        except (SMTPException, OSError) as error:
            return self._failed(client, error)

    def _client(self) -> aiosmtplib.SMTP:
        settings = self._settings
        return aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            local_hostname=settings.hostname,
            timeout=settings.timeout,
            tls_context=self._context,
            start_tls=False,
        )

    async def _connect(self, client: aiosmtplib.SMTP) -> None:
        await client.connect()
        await client.ehlo()
        if client.supports_extension("starttls"):
            await client.starttls()
            await client.ehlo()
        elif self._must_verify:
            raise SMTPException("the relay does not offer STARTTLS, which is required")
        if self._settings.username is not None and self._settings.password is not None:
            await client.login(self._settings.username, self._settings.password)

    async def _send(self, client: aiosmtplib.SMTP, message: OutboxMessage) -> Result:
        tls = _tls_version(client)
        recipient, options = _recipient(message.recipient, client)
        if recipient is None:
            self._free.append(client)
            return Result(
                Outcome.PERMANENT,
                self._peer,
                f"5.6.7 {message.recipient} needs SMTPUTF8, which the relay does not offer",
                tls,
            )
        content = message.content
        if not content.isascii():
            if client.supports_extension("8bitmime"):
                options.append("BODY=8BITMIME")
            elif message.fallback is not None:
                content = message.fallback
        await client.mail("", options=options, encoding="utf-8")
        try:
            await client.rcpt(recipient, encoding="utf-8")
            answer = await client.data(content)
        except SMTPResponseException as error:
            return await self._refused(client, error, tls)
        self._free.append(client)
        return Result(Outcome.DELIVERED, self._peer, f"{answer.code} {answer.message}", tls)

    async def _refused(
        self, client: aiosmtplib.SMTP, error: SMTPResponseException, tls: str | None
    ) -> Result:
        """The session goes on behind a refusal, unless the peer closes it (421)."""
        try:
            await client.rset()
            self._free.append(client)
        except (SMTPException, OSError):
            client.close()
        return self._judged(error, tls)

    def _failed(self, client: aiosmtplib.SMTP, error: Exception) -> Result:
        tls = _tls_version(client)
        client.close()
        if isinstance(error, SMTPAuthenticationError):
            # The operator mends a wrong password; the bounces wait for it.
            return Result(Outcome.TEMPORARY, self._peer, f"{error.code} {error.message}", tls)
        if isinstance(error, SMTPResponseException):
            return self._judged(error, tls)
        return Result(Outcome.TEMPORARY, self._peer, str(error) or type(error).__name__, tls)

    def _judged(self, error: SMTPResponseException, tls: str | None) -> Result:
        permanent = 500 <= error.code <= 599  # noqa: PLR2004 - RFC 5321 §4.2.1
        outcome = Outcome.PERMANENT if permanent else Outcome.TEMPORARY
        return Result(outcome, self._peer, f"{error.code} {error.message}", tls)


def _client_context(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:  # opportunistic (RFC 7435): better than clear text, and never worse
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _tls_version(client: aiosmtplib.SMTP) -> str | None:
    if not client.is_connected:
        return None
    connection = client.get_transport_info("ssl_object")
    return connection.version() if isinstance(connection, ssl.SSLObject) else None


def _recipient(text: str, client: aiosmtplib.SMTP) -> tuple[str | None, list[str]]:
    """How the recipient is written for this peer, with MAIL's options; None: it cannot be."""
    try:
        address = parse_address(text)
    except AddressError:
        return text, []
    if not address.needs_smtputf8:
        return address.with_ascii_domain, []
    if client.supports_extension("smtputf8"):
        return str(address), ["SMTPUTF8"]
    return None, []
