"""Which connection to close so that another one can be served: fair shares by client network.

`ConnectionRegister` shares the places of a server, `OctetBudget` the memory for what clients send.

A server has a limited number of connections. If it refused the newcomer when all places are taken,
whoever came first could shut out everybody else. This register closes a connection instead. The
fair share of a network is the limit divided by the number of networks, the newcomer's included:

- A network that holds more than its fair share of the places loses its longest idle connection;
  the largest network first.
- When no network does, the longest idle connection of all is closed if it has been idle for at
  least `min_idle`. Otherwise the newcomer is refused: a server that is full of active clients
  finishes what it has begun.
- A newcomer whose own network has its fair share already, or is at the limit that each network has,
  replaces only a connection of its own network that has been idle for at least `min_idle`.

A connection that waits for the server (a message is being stored, a request is being processed) is
held: it is never chosen. Pure: no I/O and no clock. Moments are seconds on a scale that never goes
backwards, such as `loop.time()`.

Memory is shared in the same way: when the octets that all clients together have sent are over the
budget, the largest holder of the network that holds the most is closed. What has come completely
is kept: it counts, and is never chosen.

Cost: every method takes constant time, except that `admit` and `take` look once at each network
(and `take` at the holders of one) when everything is in use.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Admission(Generic[C]):
    """Whether a connection is served, and the connection that must be closed for it, if any.

    The register has forgotten `close` already: removing it again does nothing.
    """

    admitted: bool
    close: C | None = None


@dataclass(slots=True)
class _Network(Generic[C]):
    """The connections of one network; of the idle ones, the longest idle comes first."""

    size: int = 0
    idle: dict[C, None] = field(default_factory=dict)


class ConnectionRegister(Generic[C]):
    """The open connections of one server, by network."""

    def __init__(self, limit: int, network_limit: int, min_idle: float) -> None:
        """`min_idle` is in seconds."""
        self._limit = limit
        self._network_limit = network_limit
        self._min_idle = min_idle
        self._networks: dict[str, _Network[C]] = {}
        self._network_of: dict[C, str] = {}
        self._active_at: dict[C, float] = {}  # of idle ones, the longest idle first

    def __len__(self) -> int:
        return len(self._network_of)

    def __contains__(self, connection: C) -> bool:
        return connection in self._network_of

    @property
    def fullness(self) -> float:
        """Return the used share of the places: from 0.0 to 1.0."""
        return len(self) / self._limit

    def size_of(self, network: str) -> int:
        """Return the number of connections that a network has."""
        found = self._networks.get(network)
        return found.size if found else 0

    def admit(self, connection: C, network: str, now: float) -> Admission[C]:
        """Register a new connection if there is a place for it or one can be made."""
        if self.size_of(network) >= self._network_limit:
            victim = self._idle_for_long(self._of(network), now)
        elif len(self) >= self._limit:
            victim = self._victim(network, now)
        else:
            self._add(connection, network, now)
            return Admission(admitted=True)
        if victim is None:
            return Admission(admitted=False)
        self.remove(victim)
        self._add(connection, network, now)
        return Admission(admitted=True, close=victim)

    def active(self, connection: C, now: float) -> None:
        """Note that the client did something. Held and unknown connections are left as they are."""
        if self._active_at.pop(connection, None) is not None:
            self._set_idle(connection, now)

    def protect(self, connection: C) -> None:
        """Protect a connection from being closed, until `release`."""
        if self._active_at.pop(connection, None) is not None:
            del self._of(self._network_of[connection]).idle[connection]

    def release(self, connection: C, now: float) -> None:
        """End the protection: the connection has been idle since `now`."""
        if connection in self._network_of and connection not in self._active_at:
            self._set_idle(connection, now)

    def remove(self, connection: C) -> None:
        """Forget a connection that has ended. Unknown ones are ignored."""
        name = self._network_of.pop(connection, None)
        if name is None:
            return
        self._active_at.pop(connection, None)
        network = self._of(name)
        network.idle.pop(connection, None)
        network.size -= 1
        if not network.size:
            del self._networks[name]

    def _of(self, name: str) -> _Network[C]:
        return self._networks.get(name) or _Network()

    def _add(self, connection: C, network: str, now: float) -> None:
        self._network_of[connection] = network
        self._networks.setdefault(network, _Network()).size += 1
        self._set_idle(connection, now)

    def _set_idle(self, connection: C, now: float) -> None:
        """Make it the last in both orders."""
        self._active_at[connection] = now
        idle = self._networks[self._network_of[connection]].idle
        idle.pop(connection, None)
        idle[connection] = None

    def _victim(self, name: str, now: float) -> C | None:
        known = len(self._networks) + (name not in self._networks)
        share = max(self._limit / known, 1)
        if self.size_of(name) >= share:
            return self._idle_for_long(self._of(name), now)
        above = (each for each in self._networks.values() if each.size > share and each.idle)
        largest = max(above, key=self._rank, default=None)
        if largest is not None:
            return next(iter(largest.idle))
        longest = next(iter(self._active_at), None)
        return None if longest is None else self._if_idle_for_long(longest, now)

    def _rank(self, network: _Network[C]) -> tuple[int, float]:
        """Of the largest networks, the one with the longest idle connection."""
        return network.size, -self._active_at[next(iter(network.idle))]

    def _idle_for_long(self, network: _Network[C], now: float) -> C | None:
        longest = next(iter(network.idle), None)
        return None if longest is None else self._if_idle_for_long(longest, now)

    def _if_idle_for_long(self, connection: C, now: float) -> C | None:
        return connection if now - self._active_at[connection] >= self._min_idle else None


class OctetBudget(Generic[C]):
    """Octets that are in memory for clients."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._total = 0
        self._kept: dict[C, int] = {}
        self._network_of: dict[C, str] = {}
        self._networks: dict[str, dict[C, int]] = {}
        self._sums: dict[str, int] = {}

    @property
    def total(self) -> int:
        """Return the octets in use. After each `take` they are at most the limit."""
        return self._total

    def take(self, holder: C, network: str, octets: int) -> list[C]:
        """Count octets that have come for a holder; return the holders to close, mostly none.

        Those are forgotten already. The holder itself may be one, the last. A holder stays with the
        network that it was first counted for.
        """
        before = self._kept.pop(holder, 0)
        self._total -= before
        octets += before
        network = self._network_of.setdefault(holder, network)
        holders = self._networks.setdefault(network, {})
        holders[holder] = holders.get(holder, 0) + octets
        self._sums[network] = self._sums.get(network, 0) + octets
        self._total += octets
        closed: list[C] = []
        while self._total > self._limit:
            closed.append(self._largest())
            self.release(closed[-1])
        return closed

    def keep(self, holder: C) -> None:
        """Count a holder's octets and never choose it. Unknown ones are ignored."""
        octets = self._forget(holder)
        if octets:
            self._kept[holder] = self._kept.get(holder, 0) + octets

    def release(self, holder: C) -> None:
        """Forget all octets of a holder. Unknown ones are ignored."""
        self._total -= self._forget(holder) + self._kept.pop(holder, 0)

    def _forget(self, holder: C) -> int:
        network = self._network_of.pop(holder, None)
        if network is None:
            return 0
        octets = self._networks[network].pop(holder)
        self._sums[network] -= octets
        if not self._networks[network]:
            del self._networks[network], self._sums[network]
        return octets

    def _largest(self) -> C:
        network = max(self._sums, key=self._sums.__getitem__)
        holders = self._networks[network]
        return max(holders, key=holders.__getitem__)
