"""The sender's mail server: aiosmtpd, written by others, as the independent other end."""

import asyncio
import queue
from dataclasses import dataclass
from typing import Any, Self

from aiosmtpd.controller import Controller

from tests.partners.postfix import free_port


@dataclass(frozen=True)
class Delivered:
    """What arrived."""

    sender: str
    recipients: list[str]
    content: bytes


class _Controller(Controller):
    """Closes what its clients have left open: an unclosed socket is some later test's warning."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sessions: list[Any] = []

    def factory(self) -> Any:
        session = super().factory()
        self._sessions.append(session)
        return session

    def stop(self, *arguments: Any, **options: Any) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(5)
        super().stop(*arguments, **options)

    async def _close(self) -> None:
        for session in self._sessions:
            if session.transport is not None:
                session.transport.abort()
        await asyncio.sleep(0.01)  # aborted transports close their sockets in the loop's next turn


class Listener:
    """Answers each message as `replies` say, one after the other, then with 250."""

    def __init__(
        self, *replies: str, host: str = "127.0.0.1", port: int | None = None, **options: Any
    ) -> None:
        self.messages: queue.Queue[Delivered] = queue.Queue()
        self.port = port or free_port()
        self._replies = list(replies)
        self.controller = _Controller(
            self, host, self.port, server_hostname="mx.sender.example", **options
        )

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self._replies:
            return self._replies.pop(0)
        sender = (envelope.mail_from or "").strip("<>")
        self.messages.put(Delivered(sender, envelope.rcpt_tos, envelope.content))
        return "250 2.0.0 Ok"

    def next(self, seconds: float = 10.0) -> Delivered:
        return self.messages.get(timeout=seconds)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.controller.stop()
