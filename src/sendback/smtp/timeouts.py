"""When a client that makes no progress is disconnected. Pure: moments are seconds, as arguments.

RFC 5321 §4.5.3.2 asks a server to wait five minutes for the next command. A timeout for each octet
would serve a client that sends one octet at a time for hours. So the timeouts are for progress:

- a whole command at least every `idle` seconds (the setting);
- content at 128 octets a second at least, with a reserve of `idle` seconds;
- a message within twice `idle` of the greeting or the last message, however many commands come;
- the end of the session within `session` seconds (the setting).

Under high load (more than three quarters of the connection limit in use) the timeouts are shorter
for all clients. Time that the client waited for the server is not counted.
"""

from dataclasses import dataclass

HIGH_LOAD = 0.75  # the share of the connection limit in use above which the timeouts are shorter


@dataclass(frozen=True, slots=True)
class TimeoutSettings:
    """The settings, in seconds."""

    idle: float
    session: float


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The timeouts in effect, in seconds.

    `idle` is for the next command, `idle_in_transaction` for the next command after MAIL, `message`
    for the next message. Content must come at `octets_per_second`, with a `reserve` in seconds.
    """

    idle: float
    idle_in_transaction: float
    message: float
    reserve: float
    octets_per_second: float


_HIGH_LOAD_TIMEOUTS = Timeouts(10.0, 30.0, 60.0, 30.0, 1024.0)


def timeouts_for(settings: TimeoutSettings, *, high_load: bool) -> Timeouts:
    """Return the timeouts under normal or high load."""
    idle = settings.idle
    if not high_load:
        return Timeouts(idle, idle, 2 * idle, idle, 128.0)
    longest = _HIGH_LOAD_TIMEOUTS
    return Timeouts(
        min(idle, longest.idle),
        min(idle, longest.idle_in_transaction),
        min(2 * idle, longest.message),
        min(idle, longest.reserve),
        longest.octets_per_second,
    )


class SessionProgress:
    """When a client made progress, and its deadline."""

    def __init__(self, now: float) -> None:
        self._started = now
        self._message_began = now  # the greeting, or the end of the last message
        self.last = now  # the last whole command or content; the connection sets it
        self._content_deadline: float | None = None

    def content_received(self, octets: int, now: float, timeouts: Timeouts) -> None:
        """Record content; `octets` is 0 when content is to come from now on."""
        latest = now + timeouts.reserve
        earlier = latest if self._content_deadline is None else self._content_deadline
        self._content_deadline = min(earlier + octets / timeouts.octets_per_second, latest)
        self.last = now

    def message_ended(self, now: float) -> None:
        """Record that the content of the message is complete."""
        self._content_deadline = None
        self._message_began = self.last = now

    def exclude(self, since: float, now: float) -> None:
        """Leave out the time in which the client waited for the server."""
        self._message_began += now - since
        self.last = now

    def deadline(
        self, settings: TimeoutSettings, timeouts: Timeouts, *, in_transaction: bool
    ) -> float:
        """Return the moment at which the client is disconnected if nothing comes before it."""
        session = self._started + settings.session
        if self._content_deadline is not None:
            return min(self._content_deadline, self.last + timeouts.reserve, session)
        idle = timeouts.idle_in_transaction if in_transaction else timeouts.idle
        return min(self.last + idle, self._message_began + timeouts.message, session)
