"""The interface of transports, and the transport that captures all messages."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, Protocol

from sendback.faults.model import FaultEvent, FaultReply, Point
from sendback.mail.address import AddressError, parse_mailbox
from sendback.service.faults.faults import Faults
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
    """Marks every message as captured in the outbox; nothing is sent. Faults may fail it."""

    per_domain: ClassVar[int | None] = None

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    async def deliver(self, message: OutboxMessage) -> Result:
        if Point.DELIVERY in self._faults.points:
            event = FaultEvent(
                Point.DELIVERY,
                sender=_key(message.sender),
                recipients=(message.recipient.key,),
            )
            rule = await self._faults.inject(event)
            if rule is not None and rule.delivery_reply is not None:
                return _injected(rule.name, rule.delivery_reply)
        return Result(Outcome.CAPTURED, "capture", f"kept for {message.recipient}")

    async def close(self) -> None:
        """Do nothing."""


def _key(sender: str | None) -> str | None:
    try:
        return None if sender is None else parse_mailbox(sender).address.key
    except AddressError:
        return sender


def _injected(name: str, reply: FaultReply) -> Result:
    outcome = Outcome.PERMANENT if reply.is_permanent else Outcome.TEMPORARY
    return Result(outcome, f"injected ({name})", str(reply))
