"""The physical limit of receiving in Python: a server that understands nothing, and one SQLite.

It answers each packet as if it were the next command of smtp-source, and a thread inserts the
octets of each mail as one row, all that wait in one transaction. `python -m bench.bare_sink PORT
FILE` runs until it is terminated.
"""

import asyncio
import queue
import sqlite3
import sys
from typing import Any, cast

import uvloop

_COMMANDS = 3  # HELO, MAIL, RCPT: each is answered with 250


class Sink(asyncio.Protocol):
    """One connection of smtp-source without pipelining."""

    def __init__(self, waiting: "queue.SimpleQueue[tuple[bytes, Sink]]") -> None:
        self._waiting = waiting
        self._commands = 0
        self._content: list[bytes] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        if self._content is not None:
            self._content.append(data)
            if data.endswith(b"\r\n.\r\n"):
                self._waiting.put((b"".join(self._content), self))
                self._content = None
            return
        self._commands += 1
        if self._commands <= _COMMANDS:
            self.transport.write(b"250 Ok\r\n")
        elif self._commands == _COMMANDS + 1:
            self._content = []
            self.transport.write(b"354 Go\r\n")
        else:
            self.transport.write(b"221 Bye\r\n")
            self.transport.close()


def _store(path: str, waiting: Any, loop: asyncio.AbstractEventLoop) -> None:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE IF NOT EXISTS mails (number INTEGER PRIMARY KEY, content BLOB)")
    while True:
        mails = [waiting.get()]
        while not waiting.empty():
            mails.append(waiting.get())
        database.execute("BEGIN IMMEDIATE")
        database.executemany(
            "INSERT INTO mails (content) VALUES (?)", [(content,) for content, _ in mails]
        )
        database.execute("COMMIT")
        loop.call_soon_threadsafe(_answer, [sink for _, sink in mails])


def _answer(sinks: list[Sink]) -> None:
    for sink in sinks:
        sink.transport.write(b"250 Stored\r\n")


async def main(port: int, path: str) -> None:
    loop = asyncio.get_running_loop()
    waiting: queue.SimpleQueue[tuple[bytes, Sink]] = queue.SimpleQueue()
    loop.run_in_executor(None, _store, path, waiting, loop)
    server = await loop.create_server(lambda: Sink(waiting), "127.0.0.1", port, backlog=1000)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
