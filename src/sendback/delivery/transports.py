"""The ways out: what every one of them offers, and the one that keeps everything here."""

from dataclasses import dataclass
from typing import Protocol

from sendback.store.values import OutboxMessage, Outcome


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended: the peer `host[address]:port`, its words, its TLS version if any.

    While not `is_settled`, the next server of the same route may still do.
    """

    outcome: Outcome
    peer: str
    reply: str
    tls: str | None = None
    is_settled: bool = True


class Transport(Protocol):
    """A way for a message to leave."""

    async def deliver(self, message: OutboxMessage) -> Result:
        """One attempt. Whatever the peer does, it ends in a `Result`."""

    async def close(self) -> None:
        """Closes what is kept open."""


class Capture:
    """Keeps every message in the outbox, to be looked at; nothing is ever sent."""

    async def deliver(self, message: OutboxMessage) -> Result:
        return Result(Outcome.CAPTURED, "capture", f"kept for {message.recipient}")

    async def close(self) -> None:
        """There is nothing open."""
