"""A fault rule: the point at which it applies, its selectors, its count, and its effect.

Theory of operation. At each point (`Point`) the server describes what happens as a `FaultEvent`. A
rule counts the events that its selectors match, from 1, whether or not it takes effect, and whether
or not another rule does. It is due for an event when its count selects that number (`is_due`); the
first rule that is due takes effect. Nothing is random: a probability is decided by a hash of the
seed and the number, so that the same events fail in each run.

What must never be in this file: the counters (`store.faults`), a clock, I/O.
"""

import hashlib
import ipaddress
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sendback.authz.patterns import Pattern, matches, read_pattern

NULL_SENDER = "<>"
_HASH_OCTETS = 8
_PERMANENT = 500

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Point(StrEnum):
    """Where a fault is injected."""

    CONNECT = "connect"  # instead of the greeting of the SMTP server
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END = "end"  # the reply to the content of a message
    API = "api"
    DELIVERY = "delivery"  # of a bounce, in capture mode
    ACTION = "action"  # of a receipt rule


class Failure(StrEnum):
    """Whether a delivery or an action is retried."""

    TEMPORARY = "temporary"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True)
class FaultReply:
    """An SMTP reply: code, enhanced status code (RFC 3463), text."""

    code: int
    status: str
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}"

    @property
    def is_permanent(self) -> bool:
        return self.code >= _PERMANENT


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """What happens at a point. None: the point has no such property.

    `sender` and `recipients` are address keys (`Address.key`), `<>` the null reverse-path.
    """

    at: Point
    client: str | None = None
    sender: str | None = None
    recipients: tuple[str, ...] = ()
    operation: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True)
class FaultRule:
    """A rule; its fields are the members of its JSON form. `rules.parse_fault` checks them.

    An empty `name` is replaced when the rule is added. `sender` and `recipient` are patterns with
    `*` and `?`, or a domain. `client` is a network. At most one of `first`, `every`, `start` (in
    JSON `from`) and `only` is set. `delay` is in seconds, before the effect. At most one of
    `reply`, `drop`, `error`, `lost` and `failure` is set; `text` belongs to `error` and `failure`.
    """

    at: Point
    name: str = ""
    client: Network | None = None
    sender: str | None = None
    recipient: str | None = None
    operation: str | None = None
    action: str | None = None
    first: int | None = None
    every: int | None = None
    start: int | None = None
    only: int | None = None
    probability: float = 1.0
    seed: int = 0
    delay: float = 0.0
    reply: FaultReply | None = None
    drop: bool = False
    error: str | None = None
    lost: bool = False
    failure: Failure | None = None
    text: str | None = None

    def matches(self, event: FaultEvent) -> bool:
        """Return whether the selectors match the event."""
        return (
            event.at is self.at
            and (self.client is None or _is_in(self.client, event.client))
            and (self.sender is None or _fits(self.sender, event.sender))
            and (
                self.recipient is None or any(_fits(self.recipient, to) for to in event.recipients)
            )
            and self.operation in {None, event.operation}
            and self.action in {None, event.action}
        )

    def is_due(self, number: int) -> bool:
        """Return whether the rule takes effect on the event with this number, from 1."""
        if self.first is not None and number > self.first:
            return False
        if self.every is not None and number % self.every:
            return False
        if self.start is not None and number < self.start:
            return False
        if self.only is not None and number != self.only:
            return False
        return self.probability >= 1 or _share(self.seed, number) < self.probability

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form, without members that have their default."""
        found: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value != entry.default:
                found["from" if entry.name == "start" else entry.name] = _plain(value)
        return found

    @property
    def delivery_reply(self) -> FaultReply | None:
        """The reply to a delivery; None if it does not fail."""
        if self.failure is None:
            return self.reply
        text = self.text or f"Injected fault {self.name}"
        if self.failure is Failure.PERMANENT:
            return FaultReply(550, "5.0.0", text)
        return FaultReply(451, "4.0.0", text)

    @property
    def effect(self) -> str:
        """The effect as one line of text."""
        effects = [
            f"wait {self.delay:g} s" if self.delay else "",
            f"reply {self.reply}" if self.reply else "",
            "drop the connection" if self.drop else "",
            f"error {self.error}" if self.error else "",
            "lose the answer" if self.lost else "",
            f"{self.failure} failure" if self.failure else "",
        ]
        return ", ".join(effect for effect in effects if effect)

    @property
    def counted(self) -> str:
        """The count and the probability as text."""
        counts = [
            f"first {self.first}" if self.first else "",
            f"every {self.every}" if self.every else "",
            f"from {self.start}" if self.start else "",
            f"only {self.only}" if self.only else "",
            f"probability {self.probability:g}, seed {self.seed}" if self.probability < 1 else "",
        ]
        return ", ".join(count for count in counts if count) or "always"

    @property
    def selected(self) -> str:
        """The selectors as text."""
        names = ("client", "sender", "recipient", "operation", "action")
        given = [(name, getattr(self, name)) for name in names]
        return ", ".join(f"{name} {value}" for name, value in given if value is not None) or "all"


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float) else str(value)


def _share(seed: int, number: int) -> float:
    """Return a number from 0 to 1, without 1, that depends on nothing but the arguments."""
    digest = hashlib.sha256(f"{seed}:{number}".encode("ascii")).digest()
    return int.from_bytes(digest[:_HASH_OCTETS]) / float(2 ** (8 * _HASH_OCTETS))


def _is_in(network: Network, client: str | None) -> bool:
    try:
        address = ipaddress.ip_address((client or "").partition("%")[0])
    except ValueError:
        return False  # a client without an IP address, by a Unix socket
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address in network


def _fits(pattern: str, address: str | None) -> bool:
    return address is not None and matches(_compiled(pattern), address.casefold())


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Pattern:
    """A pattern without `@` is a domain, or `*`."""
    whole = pattern if "@" in pattern or pattern == NULL_SENDER else f"*@{pattern}"
    found = read_pattern("*" if pattern == "*" else whole.casefold(), {}, variables=False)
    return found or ()
