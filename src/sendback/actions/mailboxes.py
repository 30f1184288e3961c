"""Mailbox servers: WorkMail and Connect actions hand mail over by SMTP, to `smtp://HOST:PORT`.

The mail keeps its reverse-path and goes to the rule's recipients. Its content is sent piece by
piece, so that a large one is never in memory as a whole.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import SplitResult

from sendback.mail.printable import printable
from sendback.redaction import shown_url, shown_wrong, split_url
from sendback.service.rules.content import Content
from sendback.service.rules.ports import ActionFailedError, UnknownTargetError
from sendback.smtp_client.connection import Connection, PeerError, Timeouts
from sendback.smtp_client.content import dot_stuffed_pieces
from sendback.smtp_client.conversation import (
    Capabilities,
    Conversation,
    Exchange,
    RefusedError,
    Stage,
    StageReply,
    expect,
    greet,
    hello,
    quit_session,
    request_tls,
)
from sendback.smtp_client.replies import ServerReply

_TIMEOUT_SECONDS = 60.0  # for a reply, and for the server to accept some more of the content
_DEFAULT_PORT = 25
_START_MAIL_INPUT = 354
_MAX_REPLY = 300


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A recipient and the reply that refused it."""

    recipient: str
    reply: ServerReply

    def __str__(self) -> str:
        return f"{self.recipient}: {_shown(self.reply)}"


class _AllRefusedError(RefusedError):
    """The server refused all recipients."""

    def __init__(self, refusals: Sequence[_Refusal]) -> None:
        super().__init__(StageReply(Stage.RCPT, refusals[-1].reply))
        self.refusals = refusals


class MailboxServers:
    """Implements `ports.Mailboxes`."""

    def __init__(self, hostname: str, *, seconds: float = _TIMEOUT_SECONDS) -> None:
        """`hostname` is the EHLO name, `seconds` the timeout of replies and of sending."""
        self._hostname = hostname
        self._timeouts = Timeouts(seconds)
        self._trust: ssl.SSLContext | None = None

    async def deliver(
        self, target: str, sender: str, recipients: Sequence[str], content: Content
    ) -> str:
        """Hand the mail over; see `ports.Mailboxes`."""
        url = _server(target)
        shown = shown_url(target)
        try:
            async with self._connection(url) as connection:
                capabilities = await self._greet(connection, url.hostname or "")
                parameters = await _parameters(capabilities, [sender, *recipients], content, shown)
                refusals, reply = await _transact(
                    connection, sender, recipients, parameters, content, shown
                )
        except (RefusedError, PeerError, OSError) as error:  # refused before MAIL: never final
            raise ActionFailedError(f"{shown}: {printable(str(error), _MAX_REPLY)}") from error
        text = f"{shown} answered {_text(reply)}"
        return f"{text}; refused: {_joined(refusals)}" if refusals else text

    @contextlib.asynccontextmanager
    async def _connection(self, url: SplitResult) -> AsyncIterator[Connection]:
        """A connection that ends with QUIT, or abruptly after a failure of it or of the content."""
        connection = await Connection.open(
            url.hostname or "", url.port or _DEFAULT_PORT, self._timeouts
        )
        try:
            try:
                yield connection
            except (ActionFailedError, RefusedError):
                await _quit(connection)
                raise
            await _quit(connection)
        finally:
            connection.abort()

    async def _greet(self, connection: Connection, host: str) -> Capabilities:
        """Wait for the greeting, send EHLO and, if it is offered, STARTTLS.

        Raises `RefusedError`, `PeerError`, also if the certificate is not valid for the host.
        """
        capabilities = await connection.run(greet(self._hostname))
        if "STARTTLS" not in capabilities:
            return capabilities
        await connection.run(request_tls())
        if self._trust is None:
            self._trust = await asyncio.to_thread(ssl.create_default_context)
        await connection.start_tls(self._trust, host)
        return await connection.run(hello(self._hostname))


async def _transact(
    connection: Connection,
    sender: str,
    recipients: Sequence[str],
    parameters: str,
    content: Content,
    shown: str,
) -> tuple[list[_Refusal], ServerReply]:
    """Send the mail; return the refused recipients and the last reply.

    Raises `ActionFailedError`, `PeerError`, `OSError`, `ContentGoneError`.
    """
    try:
        refusals = await connection.run(_envelope(sender, recipients, parameters))
        async with (
            aclosing(content.stream()) as chunks,
            aclosing(dot_stuffed_pieces(chunks)) as pieces,
        ):
            await connection.send(pieces, Stage.CONTENT)
        reply = await connection.run(_end_of_content())
    except _AllRefusedError as error:
        final = all(refusal.reply.is_permanent for refusal in error.refusals)
        text = f"{shown} answered {_joined(error.refusals)}"
        raise ActionFailedError(text, final=final) from error
    except RefusedError as error:
        refused = error.refusal.reply
        text = f"{shown} answered {_shown(refused)}"
        raise ActionFailedError(text, final=refused.is_permanent) from error
    return refusals, reply


def _envelope(
    sender: str, recipients: Sequence[str], parameters: str
) -> Conversation[list[_Refusal]]:
    """Send MAIL, RCPT and DATA one by one; return the refused recipients.

    Raises `RefusedError` if the server does not accept MAIL, any recipient or DATA.
    """
    (reply,) = yield Exchange(f"MAIL FROM:<{sender}>{parameters}\r\n".encode(), 1, Stage.MAIL)
    expect(reply, Stage.MAIL)
    refusals = []
    for recipient in recipients:
        (reply,) = yield Exchange(f"RCPT TO:<{recipient}>\r\n".encode(), 1, Stage.RCPT)
        if not reply.is_completion:
            refusals.append(_Refusal(recipient, reply))
    if len(refusals) == len(recipients):
        raise _AllRefusedError(refusals)
    (reply,) = yield Exchange(b"DATA\r\n", 1, Stage.DATA)
    if reply.code != _START_MAIL_INPUT:
        raise RefusedError(StageReply(Stage.DATA, reply))
    return refusals


def _end_of_content() -> Conversation[ServerReply]:
    """Wait for the reply to the content and return it. Raises `RefusedError`."""
    (reply,) = yield Exchange(b"", 1, Stage.CONTENT)
    expect(reply, Stage.CONTENT)
    return reply


async def _parameters(
    capabilities: Capabilities, addresses: Sequence[str], content: Content, shown: str
) -> str:
    """Return the parameters of MAIL (RFC 1870, RFC 6152, RFC 6531). Raises `ActionFailedError`."""
    parameters = ""
    if "SIZE" in capabilities:
        parameters += f" SIZE={content.size}"
    if "8BITMIME" in capabilities and not await _is_ascii(content):
        parameters += " BODY=8BITMIME"
    if not all(map(str.isascii, addresses)):
        if "SMTPUTF8" not in capabilities:
            raise ActionFailedError(f"{shown} does not support SMTPUTF8", final=True)
        parameters += " SMTPUTF8"
    return parameters


async def _is_ascii(content: Content) -> bool:
    async with aclosing(content.stream()) as chunks:
        async for chunk in chunks:
            if not chunk.isascii():
                return False
    return True


async def _quit(connection: Connection) -> None:
    with contextlib.suppress(PeerError):
        await connection.run(quit_session())


def _text(reply: ServerReply) -> str:
    return printable(reply.beginning(_MAX_REPLY), _MAX_REPLY)


def _shown(reply: ServerReply) -> str:
    return f"{reply.code} {_text(reply)}"


def _joined(refusals: Sequence[_Refusal]) -> str:
    return ", ".join(map(str, refusals))


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
