"""The interface of transports, and the transport that captures all messages."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Protocol

from sendback.store.outbox.rows import OutboxMessage, Outcome


class Fault(StrEnum):
    """What a failed attempt says about the whole domain."""

    MESSAGE = "message"  # nothing: the reply is about this message
    UNCLEAR = "unclear"  # it may refuse everything
    DOMAIN = "domain"  # nothing can be delivered there now


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended: the peer `host[address]:port`, its reply, its TLS version if any.

    `retry_after` is the delay that the peer requires (greylisting). If not `is_settled`, the next
    server of the same route is tried.
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
    """Delivers messages. `per_domain` is the concurrency limit of a domain, None for none."""

    @property
    def per_domain(self) -> int | None: ...

    async def deliver(self, message: OutboxMessage) -> Result:
        """Make one attempt. Failures of the peer are results, not exceptions."""

    async def close(self) -> None:
        """Close idle sessions."""


class Capture:
    """Marks every message as captured in the outbox; nothing is sent."""

    per_domain: ClassVar[int | None] = None

    async def deliver(self, message: OutboxMessage) -> Result:
        return Result(Outcome.CAPTURED, "capture", f"kept for {message.recipient}")

    async def close(self) -> None:
        """Do nothing."""
