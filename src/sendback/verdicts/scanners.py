"""Spam by rspamd (HTTP), viruses by clamd (INSTREAM). Neither is asked unless it is configured."""

import asyncio
import json
import logging
import struct
from contextlib import suppress
from urllib.parse import quote

import httpcore

from sendback.receipt.verdicts import Verdict
from sendback.service.processing import Examined

log = logging.getLogger(__name__)

_SECONDS = 30.0
_CHUNK = 64 * 1024

# rspamd documentation, "Actions". What it would only delay or mark is neither good nor bad.
_ACTIONS = {
    "no action": Verdict.PASS,
    "greylist": Verdict.GRAY,
    "add header": Verdict.FAIL,
    "rewrite subject": Verdict.FAIL,
    "soft reject": Verdict.GRAY,
    "reject": Verdict.FAIL,
}


class Rspamd:
    """Asks rspamd's `/checkv2`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/") + "/checkv2"
        self._pool = httpcore.AsyncConnectionPool(max_connections=20)

    async def scan(self, examined: Examined) -> Verdict:
        headers = {
            "Content-Length": str(len(examined.content)),
            "From": str(examined.reverse_path),
            "Helo": examined.client.helo,
            "IP": examined.client.ip.removeprefix("IPv6:"),
        }
        fields = [
            (name.encode(), quote(text, safe="@.[]:+-=_<> ").encode())
            for name, text in headers.items()
        ]
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._pool.request(
                    "POST", self._url, headers=fields, content=examined.content
                )
            return _ACTIONS.get(json.loads(answer.content)["action"], Verdict.GRAY)
        except (TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("rspamd could not be asked: %r", error)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            log.warning("rspamd could not be asked: %r", error)
        return Verdict.PROCESSING_FAILED


class Clamd:
    """Asks clamd, `HOST:PORT` or the path of its socket."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def scan(self, examined: Examined) -> Verdict:
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._ask(examined.content)
        except (TimeoutError, OSError) as error:
            log.warning("clamd could not be asked: %r", error)
            return Verdict.PROCESSING_FAILED
        if answer.endswith(b"OK"):
            return Verdict.PASS
        if answer.endswith(b"FOUND"):
            return Verdict.FAIL
        log.warning("clamd answered %r", answer)
        return Verdict.PROCESSING_FAILED

    async def _ask(self, content: bytes) -> bytes:
        """clamd(8), `zINSTREAM`: chunks with their lengths, a zero at the end."""
        if self._address.startswith("/"):
            reader, writer = await asyncio.open_unix_connection(self._address)
        else:
            host, _, port = self._address.rpartition(":")
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            writer.write(b"zINSTREAM\0")
            for start in range(0, len(content), _CHUNK):
                chunk = content[start : start + _CHUNK]
                writer.write(struct.pack("!I", len(chunk)) + chunk)
                await writer.drain()
            writer.write(struct.pack("!I", 0))
            await writer.drain()
            return (await reader.read(4096)).rstrip(b"\0\n")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
