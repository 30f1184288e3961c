"""The SMTP transport: delivers along a route, with reused sessions.

A 5xx reply to the message is permanent, a 4xx temporary. After a host that cannot be reached, does
not greet or disconnects, the next hop of the route is tried; if all fail, the failure is temporary
and counts for the whole domain. The reverse-path is always null
(RFC 3464 §2), and a server that refuses `<>` is never tried with another sender.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sendback.clock import Clock
from sendback.delivery.refusals import fault_of, greylist_wait
from sendback.delivery.routes import Hop, Location, Route, Router, UnroutableError
from sendback.delivery.sessions import (
    HostFailedError,
    Session,
    SessionSettings,
    open_session,
)
from sendback.delivery.transports import Fault, Result
from sendback.mail.printable import printable
from sendback.smtp_client.conversation import Stage, StageReply
from sendback.store.outbox.rows import OutboxMessage, Outcome

Sign = Callable[[OutboxMessage], Awaitable[OutboxMessage]]

# After this idle time a session is closed: peers limit open sessions.
_IDLE_SECONDS = 5.0
# One in so many of the connections may be kept idle.
_SHARE_OF_IDLE = 4
_REPLY_LENGTH = 1000
_PEER_LENGTH = 300
# Hosts of one domain that are connected to in one attempt.
_MAX_HOPS = 10


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Connections at most in all, to one host, and for one domain (None: no limit of its own).

    `dead_for` is how long a failed host is not tried while there is another.
    """

    connections: int
    per_host: int
    per_domain: int | None
    dead_for: timedelta


@dataclass(frozen=True, slots=True)
class SessionCounts:
    """How many sessions wait for another message, and how many attempts are in progress."""

    kept: int
    in_use: int


@dataclass
class _Pool:
    """The idle sessions with one host, the most recent last, and its free connection slots."""

    places: asyncio.Semaphore
    idle: deque[Session] = field(default_factory=deque)
    users: int = 0


class SmtpTransport:
    """Delivers through the hops that the router returns."""

    def __init__(
        self,
        router: Router,
        settings: SessionSettings,
        limits: ConnectionLimits,
        clock: Clock,
        sign: Sign,
    ) -> None:
        self._router = router
        self._clock = clock
        self._sign = sign
        self._settings = settings
        self._limits = limits
        self._places = asyncio.Semaphore(limits.connections)
        self._pools: dict[str, _Pool] = {}
        self._dead: dict[str, tuple[datetime, Result]] = {}
        self._idle: dict[Session, asyncio.TimerHandle] = {}  # of all pools, the oldest first
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def per_domain(self) -> int | None:
        return self._limits.per_domain

    @property
    def sessions(self) -> SessionCounts:
        """The sessions with all hosts."""
        pools = self._pools.values()
        return SessionCounts(sum(len(p.idle) for p in pools), sum(p.users for p in pools))

    async def deliver(self, message: OutboxMessage) -> Result:
        try:
            route = await self._router.route(message.domain)
        except UnroutableError as error:
            return _visible(_unroutable(error, "none"))
        result = _visible(await self._along(route, await self._sign(message)))
        # A failing relay must not block a domain: all domains share it.
        return replace(result, fault=Fault.MESSAGE) if route.is_shared else result

    async def close(self) -> None:
        """Close all sessions with QUIT."""
        for session, timer in self._idle.items():
            timer.cancel()
            self._end(session)
        self._idle.clear()
        self._pools.clear()
        if self._closing:
            await asyncio.wait(self._closing, timeout=1)
        await self._router.close()

    # --- attempts ---------------------------------------------------------------------------

    async def _along(self, route: Route, message: OutboxMessage) -> Result:
        """Try the hops in order. A hop without an address does not count as an attempt."""
        failures: list[Result] = []
        hops = iter(route.hops)
        tried = 0
        while tried < _MAX_HOPS and (hop := next(hops, None)) is not None:
            found = await self._at(route, hop, message)
            if found.is_settled:
                return found
            failures.append(found)
            tried += found.outcome is not Outcome.PERMANENT
        if not failures:
            return Result(Outcome.TEMPORARY, "none", "4.4.4 there is no server to try")
        # The failure of a host that exists is more useful than that of one that does not.
        main = next((f for f in reversed(failures) if f.outcome is Outcome.TEMPORARY), failures[-1])
        whole = replace(main, reply=_of_all(main, failures))
        is_cut = route.is_cut or next(hops, None) is not None
        return _not_final(whole) if is_cut and main.outcome is Outcome.PERMANENT else whole

    async def _at(self, route: Route, hop: Hop, message: OutboxMessage) -> Result:
        """Return the result of one hop; unsettled and permanent only when it has no address."""
        try:
            location = await self._router.locate(route, hop)
        except UnroutableError as error:
            return replace(_unroutable(error, hop.peer("")), is_settled=False)
        if location.key in self._dead:
            until, failure = self._dead[location.key]
            if until > self._clock.now():
                return failure
        async with self._pool(location.key) as pool:
            result = await self._over_kept(pool, location, message)
            return result or await self._over_new(pool, location, message)

    async def _over_kept(
        self, pool: _Pool, location: Location, message: OutboxMessage
    ) -> Result | None:
        while pool.idle:
            session = pool.idle.pop()
            self._idle.pop(session).cancel()
            if not session.is_open:
                continue
            try:
                return await self._send(pool, session, message)
            except HostFailedError as error:
                if error.stage is Stage.CONTENT:  # it may have been accepted: RFC 5321 §4.5.3.2.6
                    return _failed(location, error, session.tls)
                # The idle session was probably closed by the server: try a new one.
        return None

    async def _over_new(self, pool: _Pool, location: Location, message: OutboxMessage) -> Result:
        result = Result(Outcome.TEMPORARY, location.hop.peer(""), "4.4.3 there is no address")
        addresses = list(location.addresses)
        while addresses:
            found = await self._over_one(pool, location, addresses, message)
            if isinstance(found, Result):
                return found
            result = _failed(location, found, None)
            if result.is_settled:
                return result
            # Without a connection there, all of them were tried.
            connected = found.stage is not Stage.CONNECT
            addresses = [a for a in addresses if connected and a != found.address]
        self._remember_dead(location, result)
        return result

    async def _over_one(
        self, pool: _Pool, location: Location, addresses: list[str], message: OutboxMessage
    ) -> Result | HostFailedError:
        """Deliver to the first address that connects."""
        session: Session | None = None
        try:
            session = await open_session(location, addresses, self._settings)
            self._dead.pop(location.key, None)
            return await self._send(pool, session, message)
        except HostFailedError as error:
            return error if session is None else _failed(location, error, session.tls)
        except BaseException:
            if session is not None:
                session.abort()
            raise

    async def _send(self, pool: _Pool, session: Session, message: OutboxMessage) -> Result:
        answer = await session.deliver(message)
        self._keep(pool, session)
        policy = session.location.tls.name
        if isinstance(answer, str):
            return Result(Outcome.PERMANENT, session.peer, answer, session.tls, policy)
        return Result(
            _outcome(answer),
            session.peer,
            str(answer.reply),
            session.tls,
            policy,
            fault=fault_of(answer),
            retry_after=greylist_wait(answer, message.attempts),
            is_settled=not answer.reply.ends_session,
        )

    def _remember_dead(self, location: Location, result: Result) -> None:
        now = self._clock.now()
        self._dead = {key: entry for key, entry in self._dead.items() if entry[0] > now}
        self._dead[location.key] = (now + self._limits.dead_for, result)

    # --- sessions ---------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _pool(self, key: str) -> AsyncIterator[_Pool]:
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(asyncio.Semaphore(self._limits.per_host))
        pool.users += 1
        try:
            async with pool.places, self._places:
                yield pool
        finally:
            pool.users -= 1
            self._drop_if_empty(key, pool)

    def _drop_if_empty(self, key: str, pool: _Pool) -> None:
        if not pool.users and not pool.idle and self._pools.get(key) is pool:
            del self._pools[key]

    def _keep(self, pool: _Pool, session: Session) -> None:
        if not session.is_open:
            return
        loop = asyncio.get_running_loop()
        self._idle[session] = loop.call_later(_IDLE_SECONDS, self._expire, pool, session)
        pool.idle.append(session)
        if len(self._idle) > self._limits.connections // _SHARE_OF_IDLE + 1:
            oldest = next(iter(self._idle))
            self._expire(self._pools[oldest.location.key], oldest)

    def _expire(self, pool: _Pool, session: Session) -> None:
        self._idle.pop(session).cancel()
        pool.idle.remove(session)
        self._end(session)
        self._drop_if_empty(session.location.key, pool)

    def _end(self, session: Session) -> None:
        task = asyncio.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _visible(result: Result) -> Result:
    """Return the result with texts of DNS, TLS and the peer made printable and cut."""
    reply = printable(result.reply, _REPLY_LENGTH)
    return replace(result, reply=reply, peer=printable(result.peer, _PEER_LENGTH))


def _not_final(result: Result) -> Result:
    """Return a temporary result: no server tried has an address, but there are more."""
    reply = f"4.4.4 of the domain's many servers the first have no address: {result.reply}"
    return replace(result, outcome=Outcome.TEMPORARY, reply=reply, fault=Fault.DOMAIN)


def _of_all(main: Result, failures: list[Result]) -> str:
    """Return the reply, followed by those of the other servers of the route."""
    others = [f"{f.peer}: {f.reply}" for f in failures if f is not main]
    return "; also ".join([main.reply, *others])[:_REPLY_LENGTH]


def _outcome(answer: StageReply) -> Outcome:
    if answer.reply.is_positive:
        return Outcome.DELIVERED
    return Outcome.PERMANENT if answer.reply.is_permanent else Outcome.TEMPORARY


def _unroutable(error: UnroutableError, peer: str) -> Result:
    """A permanent DNS result concerns the message; a temporary one the whole domain."""
    if error.is_permanent:
        return Result(Outcome.PERMANENT, peer, str(error))
    return Result(Outcome.TEMPORARY, peer, str(error), fault=Fault.DOMAIN)


def _failed(location: Location, error: HostFailedError, tls: str | None) -> Result:
    """Return a temporary result, also for a wrong password: the operator can correct it."""
    settled = error.stage is Stage.CONTENT
    return Result(
        Outcome.TEMPORARY,
        location.hop.peer(error.address),
        error.reply,
        tls,
        location.tls.name,
        fault=Fault.UNCLEAR if settled else Fault.DOMAIN,
        is_settled=settled,
    )
