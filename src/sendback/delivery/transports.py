"""The ways out: what every one of them offers, and the one that keeps everything here."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Protocol

from sendback.store.outbox.rows import OutboxMessage, Outcome


class Fault(StrEnum):
    """What an attempt that did not deliver says about the whole domain."""

    MESSAGE = "message"  # nothing: the answer was about this message
    STRIKE = "strike"  # perhaps that it refuses everything
    DOMAIN = "domain"  # that nothing can be delivered there now


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended: the peer `host[address]:port`, its words, its TLS version if any.

    `retry_after` is when the peer wants to be asked again (greylisting). While not `is_settled`,
    the next server of the same route may still do.
    """

    outcome: Outcome
    peer: str
    reply: str
    tls: str | None = None
    tls_policy: str | None = None
    fault: Fault = Fault.MESSAGE
    retry_after: timedelta | None = None
    is_settled: bool = True


class Transport(Protocol):
    """A way for a message to leave. `per_domain`: how many at once to one domain, None: any."""

    @property
    def per_domain(self) -> int | None: ...

    async def deliver(self, message: OutboxMessage) -> Result:
        """One attempt. Whatever the peer does, it ends in a `Result`."""

    async def close(self) -> None:
        """Closes what is kept open."""


class Capture:
    """Keeps every message in the outbox, to be looked at; nothing is ever sent."""

    per_domain: ClassVar[int | None] = None

    async def deliver(self, message: OutboxMessage) -> Result:
        return Result(Outcome.CAPTURED, "capture", f"kept for {message.recipient}")

    async def close(self) -> None:
        """There is nothing open."""
