"""Spam by rspamd (HTTP), viruses by clamd (INSTREAM). Each is used only if configured.

Mail is streamed to them, and the size of their responses is bounded.
"""

import asyncio
import json
import logging
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import quote

import httpcore

from sendback.mail.printable import printable
from sendback.receipt.verdicts import Verdict
from sendback.service.rules.content import ContentGoneError, MailToCheck

log = logging.getLogger(__name__)

_SECONDS = 30.0
_MAX_RSPAMD_ANSWER = 2**20  # every rule that fired is in it
_MAX_CLAMD_ANSWER = 4096
_MAX_FIELD = 1000  # characters of the envelope in a header field

# rspamd documentation, "Actions". Mail that it would only delay or mark is GRAY.
_ACTIONS = {
    "no action": Verdict.PASS,
    "greylist": Verdict.GRAY,
    "add header": Verdict.FAIL,
    "rewrite subject": Verdict.FAIL,
    "soft reject": Verdict.GRAY,
    "reject": Verdict.FAIL,
}


class Rspamd:
    """Scans mail with rspamd's `/checkv2`."""

    def __init__(self, url: str, *, seconds: float = _SECONDS) -> None:
        """`seconds` is how long one mail may take."""
        self._seconds = seconds
        self._url = url.rstrip("/") + "/checkv2"
        self._pool = httpcore.AsyncConnectionPool(max_connections=20)

    async def scan(self, mail: MailToCheck) -> Verdict:
        """Return the verdict for rspamd's action; PROCESSING_FAILED without one."""
        try:
            async with asyncio.timeout(self._seconds):
                answer = json.loads(await self._ask(mail))
            return _ACTIONS.get(answer["action"], Verdict.GRAY)
        except (OSError, ContentGoneError, ValueError, KeyError, TypeError) as error:
            reason: Exception = error
        except RecursionError as error:
            reason = error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            reason = error
        log.warning("%s: rspamd gave no verdict: %s", mail.name, printable(repr(reason)))
        return Verdict.PROCESSING_FAILED

    async def _ask(self, mail: MailToCheck) -> bytes:
        """Raises `ValueError` when the answer is too long, and what httpcore raises."""
        headers = {
            "Content-Length": str(mail.content.size),
            "From": str(mail.reverse_path),
            "Helo": mail.client.helo,
            "IP": mail.client.ip.removeprefix("IPv6:"),
        }
        fields = [
            (name.encode(), quote(text[:_MAX_FIELD], safe="@.[]:+-=_<> ").encode())
            for name, text in headers.items()
        ]
        async with aclosing(mail.content.stream()) as content:
            request = self._pool.stream("POST", self._url, headers=fields, content=content)
            body = bytearray()
            async with request as answer:
                async for chunk in answer.aiter_stream():
                    body += chunk
                    if len(body) > _MAX_RSPAMD_ANSWER:
                        raise ValueError(f"an answer of more than {_MAX_RSPAMD_ANSWER} octets")
            return bytes(body)


class Clamd:
    """Scans mail with clamd at `HOST:PORT` or the path of its socket."""

    def __init__(self, address: str, *, seconds: float = _SECONDS) -> None:
        """`seconds` is how long one mail may take."""
        self._seconds = seconds
        self._address = address

    async def scan(self, mail: MailToCheck) -> Verdict:
        """Return FAIL when clamd finds malware, else PASS; PROCESSING_FAILED without a result."""
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._ask(mail)
        except (OSError, ContentGoneError) as error:
            log.warning("%s: clamd gave no verdict: %r", mail.name, error)
            return Verdict.PROCESSING_FAILED
        if answer.endswith(b"OK"):
            return Verdict.PASS
        if answer.endswith(b"FOUND"):
            return Verdict.FAIL
        text = printable(answer.decode("utf-8", "replace"))
        log.warning("%s: clamd gave no verdict: %s", mail.name, text)
        return Verdict.PROCESSING_FAILED

    async def _ask(self, mail: MailToCheck) -> bytes:
        """clamd(8), `zINSTREAM`: chunks with their lengths, a zero at the end."""
        async with (
            self._connection() as (reader, writer),
            aclosing(mail.content.stream()) as content,
        ):
            writer.write(b"zINSTREAM\0")
            async for chunk in content:
                writer.write(struct.pack("!I", len(chunk)))
                writer.write(chunk)
                await writer.drain()
            writer.write(struct.pack("!I", 0))
            await writer.drain()
            try:
                return (await reader.readuntil(b"\0")).rstrip(b"\0\n")
            except asyncio.IncompleteReadError as error:
                return error.partial
            except asyncio.LimitOverrunError:
                raise OSError(f"an answer of more than {_MAX_CLAMD_ANSWER} octets") from None

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Raises `OSError`."""
        if self._address.startswith("/"):
            reader, writer = await asyncio.open_unix_connection(
                self._address, limit=_MAX_CLAMD_ANSWER
            )
        else:
            host, _, port = self._address.rpartition(":")
            reader, writer = await asyncio.open_connection(
                host.strip("[]"), int(port), limit=_MAX_CLAMD_ANSWER
            )
        try:
            yield reader, writer
        finally:
            # Closing would wait until the peer has read what is left.
            writer.transport.abort()
