"""Messages between the processes that share a PostgreSQL, by LISTEN and NOTIFY.

Theory of operation. A thread has a connection of its own, which listens; a lost one is made again
with growing delays. Messages are sent by the writer, so they share the transactions of mail; those
of wake-ups are in the transaction that made the work (`wakeups`). A payload has a bound of 7,999
octets (PostgreSQL: NOTIFY).

LISTEN belongs to a session, so it does nothing behind a pooler that gives each transaction another
one (PgBouncer: pool_mode=transaction). A pooler is recognized by the process ID that it
reports, which is not that of the session. Then this process does not listen and polls, unless
the setting `listen_database` has a URL of the server itself. NOTIFY works behind a pooler.
"""

import asyncio
import logging
import os
import random
import selectors
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from typing import Any, Self

from sqlalchemy import ARRAY, Connection, Text, bindparam, func, select
from sqlalchemy.exc import DBAPIError

from sendback.store.engine.channels import Channel
from sendback.store.engine.dialects import open_engine
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.transactions import BatchUnit
from sendback.store.engine.wakeups import CHANNEL

log = logging.getLogger(__name__)

MAX_OCTETS = 7_999
_PENDING = 1000
_AT_ONCE = 100
_FIRST_RETRY_SECONDS = 0.2
_LONGEST_RETRY_SECONDS = 5.0
# How long a connection may be silent until it is tried.
_SILENT_SECONDS = 30.0
_MESSAGES = func.unnest(bindparam("messages", type_=ARRAY(Text)))
_NOTIFY = select(func.pg_notify(CHANNEL, _MESSAGES))
_SESSION = select(func.pg_backend_pid(), func.quote_ident(CHANNEL))


class Notify(BatchUnit[None]):
    """Send messages to all processes that listen."""

    def __init__(self, messages: Sequence[str]) -> None:
        self.messages = messages

    @classmethod
    def run_together(cls, connection: Connection, units: Sequence[Self]) -> Sequence[None]:
        messages = [message for unit in units for message in unit.messages]
        connection.execute(_NOTIFY, {"messages": messages})
        return [None] * len(units)


class Notifications(Channel):
    """The listening connection of one process."""

    def __init__(
        self, name: str, listen_url: str, write: Callable[[Notify], Awaitable[None]]
    ) -> None:
        """`listen_url` is where to listen; `write` runs a unit in a transaction that writes."""
        super().__init__(name, MAX_OCTETS)
        self._url = listen_url
        self._write = write
        self._pending: deque[str] = deque(maxlen=_PENDING)
        self._sending: asyncio.Task[None] | None = None
        self._thread: _ListeningThread | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()

        def receive(message: str) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._dispatch, message)

        self._thread = _ListeningThread(self._url, receive)

    def hint(self, subject: str, text: str) -> None:
        """Do nothing: a transaction that makes work notifies itself."""

    def send(self, subject: str, text: str, to: Collection[str] | None = None) -> None:  # noqa: ARG002
        self._pending.append(self.message(subject, text))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_pending())

    async def drain(self) -> None:
        if self._sending is not None:
            await asyncio.wait([self._sending])

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    async def _send_pending(self) -> None:
        while self._pending:
            size = min(len(self._pending), _AT_ONCE)
            messages = [self._pending.popleft() for _ in range(size)]
            try:
                await self._write(Notify(messages))
            except StoreUnavailableError as error:
                log.debug("%d messages are lost: %s", len(messages), error)


class _ListeningThread:
    """Listens until it is closed."""

    def __init__(self, url: str, receive: Callable[[str], None]) -> None:
        """`receive` is called in this thread."""
        self._engine = open_engine(url, writes=True)
        self._receive = receive
        self._closing, self._closed = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="store-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; it may be connecting, so it is not waited for."""
        self._closing.close()

    def _run(self) -> None:
        try:
            self._listen_until_closed()
        finally:
            self._engine.dispose()

    def _listen_until_closed(self) -> None:
        delay = _FIRST_RETRY_SECONDS
        with self._closed, selectors.DefaultSelector() as selector:
            selector.register(self._closed, selectors.EVENT_READ)
            while True:
                try:
                    with self._engine.connect() as connection:
                        if not self._listen(connection):
                            return
                        delay = _FIRST_RETRY_SECONDS
                        try:
                            self._follow(_driver(connection), selector)
                        finally:
                            connection.invalidate()  # not for the pool: it listens, or is lost
                    return
                except (DBAPIError, OSError, StoreUnavailableError, _driver_error()) as error:
                    log.info("not_listening reason=%r retry_seconds=%.1f", str(error)[:200], delay)
                if selector.select(delay * random.uniform(0.5, 1)):  # noqa: S311 - no secret
                    return
                delay = min(2 * delay, _LONGEST_RETRY_SECONDS)

    def _listen(self, connection: Connection) -> bool:
        """Listen, or return False behind a pooler."""
        session, channel = connection.execute(_SESSION).one()
        if session != _driver(connection).info.backend_pid:
            log.warning(
                "not_listening reason='there is a connection pooler': other nodes' changes and "
                "work are noticed within a second; set listen_database to the URL of the server "
                "itself to notice them at once"
            )
            return False
        connection.exec_driver_sql(f"LISTEN {channel}")
        connection.commit()
        return True

    def _follow(self, driver: Any, selector: selectors.BaseSelector) -> None:
        """Pass on what arrives; return when the thread is to end. Raise the driver's errors."""
        driver.autocommit = True
        # A copy: the driver closes its own when the connection is lost.
        with socket.socket(fileno=os.dup(driver.fileno())) as connected:
            selector.register(connected, selectors.EVENT_READ)
            try:
                while True:
                    ready = {key.fileobj for key, _ in selector.select(_SILENT_SECONDS)}
                    if self._closed in ready:
                        return
                    arrived = list(driver.notifies(timeout=0)) if ready else []
                    for notification in arrived:
                        self._receive(notification.payload)
                    if not arrived:
                        driver.execute("SELECT 1")  # raises when the connection is lost
            finally:
                selector.unregister(connected)


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def _driver_error() -> type[Exception]:
    import psycopg  # noqa: PLC0415 - only with PostgreSQL

    return psycopg.Error
