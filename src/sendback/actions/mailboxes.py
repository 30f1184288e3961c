"""Where WorkMail and Connect actions hand mail over: an SMTP server, `smtp://HOST:PORT`.

The mail keeps its reverse-path and goes to the rule's recipients: it is passed on, not answered.
aiosmtplib holds the conversation, but for the content: its own DATA command would take a large
mail as one string and work on it on the event loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast
from urllib.parse import SplitResult

import aiosmtplib

from sendback.mail.printable import printable
from sendback.redaction import shown_url, shown_wrong, split_url
from sendback.service.rules.content import Content
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError

_SECONDS = 60.0  # for a reply, and for the server to take any more of the content
_PERMANENT = 500
_GO_ON = 354
_POSITIVE = range(200, 300)
_UNSENT_OCTETS = 512 * 1024  # of the content that may wait in memory for the server
_POLL_SECONDS = 0.005
_MAX_REPLY = 300


class MailboxServers:
    """Implements `ports.Mailboxes`."""

    def __init__(self, hostname: str, *, seconds: float = _SECONDS) -> None:
        """`seconds` is how long the server may take for a reply or a part of the content."""
        self._hostname = hostname
        self._seconds = seconds

    async def deliver(
        self, target: str, sender: str, recipients: Sequence[str], content: Content
    ) -> str:
        """Hand the mail over; see `ports.Mailboxes`."""
        url = _server(target)
        shown = shown_url(target)
        client = aiosmtplib.SMTP(
            hostname=url.hostname,
            port=url.port or 25,
            local_hostname=self._hostname,
            timeout=self._seconds,
        )
        try:
            async with client:
                return await _Handover(client, shown, self._seconds).send(
                    sender, recipients, content
                )
        except (aiosmtplib.SMTPException, OSError) as error:
            raise ActionFailedError(f"{shown}: {printable(str(error), _MAX_REPLY)}") from error


class _Handover:
    """One mail to one server."""

    def __init__(self, client: aiosmtplib.SMTP, target: str, seconds: float) -> None:
        self._client = client
        self._target = target
        self._seconds = seconds

    async def send(self, sender: str, recipients: Sequence[str], content: Content) -> str:
        """Raises `ActionFailedError`, `aiosmtplib.SMTPException`, `OSError`."""
        options = await self._options([sender, *recipients], content)
        self._expect(await self._command(b"MAIL", _path("FROM", sender), *options))
        refused = await self._refused(recipients)
        reply = await self._command(b"DATA")
        if reply.code != _GO_ON:
            raise self._failure(reply)
        try:
            await self._send_content(content)
        except BaseException:
            self._abort()  # what came so far must not be taken for a whole mail
            raise
        reply = await self._command(b".")
        self._expect(reply)
        text = f"{self._target} answered {printable(reply.message, _MAX_REPLY)}"
        return f"{text}; refused: {refused}" if refused else text

    async def _options(self, addresses: Sequence[str], content: Content) -> list[bytes]:
        """The parameters of MAIL (RFC 1870, RFC 6152, RFC 6531). Raises `ActionFailedError`."""
        options = []
        if self._client.supports_extension("size"):
            options.append(b"SIZE=%d" % content.size)
        if self._client.supports_extension("8bitmime") and not await _is_ascii(content):
            options.append(b"BODY=8BITMIME")
        if not all(map(str.isascii, addresses)):
            if not self._client.supports_extension("smtputf8"):
                raise ActionFailedError(f"{self._target} does not support SMTPUTF8", final=True)
            options.append(b"SMTPUTF8")
        return options

    async def _refused(self, recipients: Sequence[str]) -> str:
        """The recipients that are refused while others are not, with the replies.

        Raises `ActionFailedError` when all are.
        """
        refusals = []
        for recipient in recipients:
            reply = await self._command(b"RCPT", _path("TO", recipient))
            if reply.code not in _POSITIVE:
                refusals.append((recipient, reply))
        text = ", ".join(
            f"{recipient}: {reply.code} {printable(reply.message, _MAX_REPLY)}"
            for recipient, reply in refusals
        )
        if len(refusals) == len(recipients):
            final = all(reply.code >= _PERMANENT for _, reply in refusals)
            raise ActionFailedError(f"{self._target} answered {text}", final=final)
        return text

    async def _command(self, *words: bytes) -> aiosmtplib.SMTPResponse:
        return await self._client.execute_command(*words)

    def _expect(self, reply: aiosmtplib.SMTPResponse) -> None:
        """Raises `ActionFailedError` unless the reply is positive."""
        if reply.code not in _POSITIVE:
            raise self._failure(reply)

    def _failure(self, reply: aiosmtplib.SMTPResponse) -> ActionFailedError:
        text = f"{self._target} answered {reply.code} {printable(reply.message, _MAX_REPLY)}"
        return ActionFailedError(text, final=reply.code >= _PERMANENT)

    async def _send_content(self, content: Content) -> None:
        """Raises `OSError` when the server takes nothing for too long."""
        async with aclosing(_stuffed(content)) as pieces:
            async for piece in pieces:
                self._transport().write(piece)
                await self._sent()

    async def _sent(self) -> None:
        """Wait until little of the content is in memory."""
        least, loop = self._transport().get_write_buffer_size(), asyncio.get_running_loop()
        deadline = loop.time() + self._seconds
        while (unsent := self._transport().get_write_buffer_size()) > _UNSENT_OCTETS:
            if unsent < least:
                least, deadline = unsent, loop.time() + self._seconds
            if loop.time() > deadline:
                raise TimeoutError("the server does not take the content")
            await asyncio.sleep(_POLL_SECONDS)

    def _transport(self) -> asyncio.WriteTransport:
        """Raises `aiosmtplib.SMTPServerDisconnected`."""
        transport = self._client.transport
        if transport is None or transport.is_closing():
            raise aiosmtplib.SMTPServerDisconnected("the connection was lost")
        return cast("asyncio.WriteTransport", transport)

    def _abort(self) -> None:
        if self._client.transport is not None:
            self._transport().abort()
        self._client.close()


def _path(name: str, address: str) -> bytes:
    return f"{name}:<{address}>".encode()


async def _is_ascii(content: Content) -> bool:
    async with aclosing(content.stream()) as chunks:
        async for chunk in chunks:
            if not chunk.isascii():
                return False
    return True


async def _stuffed(content: Content) -> AsyncGenerator[bytes, None]:
    """The content with its dots doubled and a CRLF at its end (RFC 5321 §4.5.2)."""
    before = b"\r\n"  # the last octets: a line end may be cut in two
    async with aclosing(content.stream()) as chunks:
        async for chunk in chunks:
            octets = before + chunk
            yield octets.replace(b"\r\n.", b"\r\n..")[len(before) :]
            before = octets[-2:]
    if before != b"\r\n":
        yield b"\r\n"


def _server(target: str) -> SplitResult:
    """Return the parts of the server's URL. Raises `UnknownTargetError`."""
    try:
        url = split_url(target)
        if url.scheme == "smtp" and url.hostname:
            return url
    except ValueError:
        pass
    shown = shown_wrong(target)
    raise UnknownTargetError(f"{shown} is no SMTP server: write smtp://HOST:PORT")
