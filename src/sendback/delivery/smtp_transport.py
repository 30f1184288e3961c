"""Delivery by SMTP along a route, over sessions that are kept.

What decides: a reply of 5xx to the message is permanent, 4xx temporary. A host that cannot be
reached, does not greet, or gives up in the middle is left for the route's next one; when none is
left, that is temporary. The reverse-path is always null (RFC 3464 §2), and a server that refuses
`<>` is never tried with another sender.
"""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from sendback.delivery.conversation import Answer, Stage
from sendback.delivery.routes import Hop, Route, Router
from sendback.delivery.sessions import (
    HostFailedError,
    Session,
    SessionSettings,
    open_session,
)
from sendback.delivery.transports import Result
from sendback.mail.address import AddressError, parse_address
from sendback.store.values import OutboxMessage, Outcome

# A session that nobody used for so long is closed: the peer counts it against its limits.
_IDLE_SECONDS = 5.0


@dataclass
class _Pool:
    """The sessions of one route that nobody uses, the most recent last; how many more may be."""

    places: asyncio.Semaphore
    idle: deque[tuple[Session, asyncio.TimerHandle]] = field(default_factory=deque)
    users: int = 0


class SmtpTransport:
    """Delivers through whatever hops the router names."""

    def __init__(
        self, router: Router, settings: SessionSettings, *, connections: int, per_route: int
    ) -> None:
        """`connections` at most in all, `per_route` to one route."""
        self._router = router
        self._settings = settings
        self._places = asyncio.Semaphore(connections)
        self._per_route = per_route
        self._pools: dict[str, _Pool] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def deliver(self, message: OutboxMessage) -> Result:
        try:
            domain = parse_address(message.recipient).ascii_domain
            route = await self._router.route(domain)
        except AddressError as error:
            return Result(Outcome.PERMANENT, "none", f"5.1.3 {error}")
        async with self._pool(route.key) as pool:
            return await self._deliver(pool, route, message)

    async def close(self) -> None:
        """Says goodbye to all peers."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            for session, timer in pool.idle:
                timer.cancel()
                self._end(session)
        if self._closing:
            await asyncio.wait(self._closing, timeout=1)

    # --- sessions ---------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _pool(self, key: str) -> AsyncIterator[_Pool]:
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(asyncio.Semaphore(self._per_route))
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

    def _keep(self, key: str, pool: _Pool, session: Session) -> None:
        if not session.is_open:
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_IDLE_SECONDS, self._expire, key, pool, session)
        pool.idle.append((session, timer))

    def _expire(self, key: str, pool: _Pool, session: Session) -> None:
        pool.idle = deque(entry for entry in pool.idle if entry[0] is not session)
        self._end(session)
        self._drop_if_empty(key, pool)

    def _end(self, session: Session) -> None:
        task = asyncio.create_task(session.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # --- attempts ---------------------------------------------------------------------------

    async def _deliver(self, pool: _Pool, route: Route, message: OutboxMessage) -> Result:
        while pool.idle:
            session, timer = pool.idle.pop()
            timer.cancel()
            if not session.is_open:
                continue
            try:
                return await self._send(pool, route, session, message)
            except HostFailedError as error:
                if error.stage is Stage.CONTENT:  # it may have been taken: RFC 5321 §4.5.3.2.6
                    return _failed(session.hop, session.address, error, session.tls)
                # It was kept for too long; a new one is asked before judging.
        return await self._along(pool, route, message)

    async def _along(self, pool: _Pool, route: Route, message: OutboxMessage) -> Result:
        result: Result | None = None
        for hop in route.hops:
            for address in await _addresses(hop):
                result = await self._try(pool, route, hop, address, message)
                if result.is_settled:
                    return result
            if result is None:
                result = Result(Outcome.TEMPORARY, hop.peer(""), f"4.4.3 {hop.host} has no address")
        return result or Result(Outcome.TEMPORARY, "none", "4.4.4 there is no server to try")

    async def _try(
        self, pool: _Pool, route: Route, hop: Hop, address: str, message: OutboxMessage
    ) -> Result:
        session: Session | None = None
        try:
            session = await open_session(hop, address, self._settings)
            return await self._send(pool, route, session, message)
        except HostFailedError as error:
            return _failed(hop, address, error, session.tls if session else None)
        except BaseException:
            if session is not None:
                session.abort()
            raise

    async def _send(
        self, pool: _Pool, route: Route, session: Session, message: OutboxMessage
    ) -> Result:
        answer = await session.deliver(message)
        self._keep(route.key, pool, session)
        if isinstance(answer, str):
            return Result(Outcome.PERMANENT, session.peer, answer, session.tls)
        outcome = _outcome(answer)
        settled = not answer.reply.ends_session
        return Result(outcome, session.peer, str(answer.reply), session.tls, is_settled=settled)


async def _addresses(hop: Hop) -> Sequence[str]:
    """A smarthost's name is the system's to look up; both kinds of addresses, in its order."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _outcome(answer: Answer) -> Outcome:
    if answer.reply.is_positive:
        return Outcome.DELIVERED
    return Outcome.PERMANENT if answer.reply.is_permanent else Outcome.TEMPORARY


def _failed(hop: Hop, address: str, error: HostFailedError, tls: str | None) -> Result:
    """Temporary: another host, another day; a wrong password waits for the operator, too."""
    settled = error.stage is Stage.CONTENT
    return Result(Outcome.TEMPORARY, hop.peer(address), error.reply, tls, is_settled=settled)
