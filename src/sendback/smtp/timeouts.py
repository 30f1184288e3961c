"""When a client that makes no progress is cut off. Pure: moments are seconds, given from outside.

RFC 5321 §4.5.3.2 wants a server to wait five minutes for the next command. One that waits five
minutes for each octet serves whoever drips octets, for as long as they like. So what counts is:

- a whole command at least every `idle` seconds (the setting);
- content at 128 octets a second at least, with a reserve of `idle` seconds;
- a message within twice `idle` of the greeting or the last message, however many commands come;
- an end within `session` seconds (the setting).

When more than three quarters of the places are taken, the waits are shorter for everybody. Time in
which the client waited for the server is not counted.
"""

from dataclasses import dataclass

FULL = 0.75  # the taken share of the places above which the waits are shorter


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The settings, in seconds."""

    idle: float
    session: float


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a client is waited for, in seconds.

    `idle` is for the next command, `idle_in_transaction` the same behind MAIL, `message` for the
    next message. Content must come at `octets_per_second`, with a `reserve` in seconds.
    """

    idle: float
    idle_in_transaction: float
    message: float
    reserve: float
    octets_per_second: float


_WAITS_WHEN_FULL = Waits(10.0, 30.0, 60.0, 30.0, 1024.0)


def waits(timeouts: Timeouts, *, is_full: bool) -> Waits:
    """Return the waits; `is_full` is whether more than `FULL` of the places is taken."""
    idle = timeouts.idle
    if not is_full:
        return Waits(idle, idle, 2 * idle, idle, 128.0)
    full = _WAITS_WHEN_FULL
    return Waits(
        min(idle, full.idle),
        min(idle, full.idle_in_transaction),
        min(2 * idle, full.message),
        min(idle, full.reserve),
        full.octets_per_second,
    )


class SessionTimes:
    """What one client has done when."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._message_began = now  # the greeting, or the end of the last message
        self.heard = now  # the last whole command or content; the connection sets it
        self._content_ends: float | None = None

    def content_came(self, octets: int, now: float, allowed: Waits) -> None:
        """Content has come, or is to come now: then `octets` is 0."""
        latest = now + allowed.reserve
        earlier = latest if self._content_ends is None else self._content_ends
        self._content_ends = min(earlier + octets / allowed.octets_per_second, latest)
        self.heard = now

    def message_ended(self, now: float) -> None:
        """All content of the message has come."""
        self._content_ends = None
        self._message_began = self.heard = now

    def made_to_wait(self, since: float, now: float) -> None:
        """The client has waited for the server since that moment."""
        self._message_began += now - since
        self.heard = now

    def ends_at(self, timeouts: Timeouts, allowed: Waits, *, in_transaction: bool) -> float:
        """Return the moment at which the session is cut off, unless something comes by then."""
        session = self._started + timeouts.session
        if self._content_ends is not None:
            return min(self._content_ends, self.heard + allowed.reserve, session)
        idle = allowed.idle_in_transaction if in_transaction else allowed.idle
        return min(self.heard + idle, self._message_began + allowed.message, session)
