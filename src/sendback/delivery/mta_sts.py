"""MTA-STS (RFC 8461): domains that require verified TLS, and the servers that they allow.

A domain has a record `_mta-sts.DOMAIN` with an ID, and a policy at an HTTPS address of its own. A
policy is cached in the store for its own lifetime, so that an attacker who can forge DNS for a
moment cannot remove it (§5.1): until then a missing record, or a policy that cannot be fetched,
changes nothing.
"""

import logging
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cachetools import TTLCache

from sendback.clock import Clock, seconds_of
from sendback.errors import SendbackError
from sendback.in_flight import InFlight
from sendback.net.async_resolver import AsyncResolver
from sendback.net.connector import Connector, ConnectorError
from sendback.net.dns_answers import DnsFailedError
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store
from sendback.store.outbox.mta_sts import CachedStsPolicy, FindStsPolicy, PutStsPolicy

log = logging.getLogger(__name__)

MAX_POLICY_OCTETS = 64 * 1024  # RFC 8461 §3.3
_MAX_AGE = 31_557_600  # §3.2: a year
_MAX_SERVERS = 200
_FETCH_SECONDS = 30.0
# §3.3: a fetch that failed is not repeated at once.
_AFTER_FAILURE_SECONDS = 300.0
_REFRESHED = timedelta(days=1)
_REMEMBERED = 10_000
_HOLDS_SECONDS = 60.0  # for how long a result is cached

_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_MODES = frozenset({"enforce", "testing", "none"})


class StsPolicyError(SendbackError, ValueError):
    """The text is not a valid policy; `str` is the reason."""


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A domain's policy: `enforce`, `testing` or `none`; its servers, `*.` for one label."""

    mode: str
    servers: tuple[str, ...]
    max_age: timedelta

    @property
    def enforces(self) -> bool:
        return self.mode == "enforce"

    def allows(self, host: str) -> bool:
        """RFC 8461 §4.1."""
        name = host.rstrip(".").lower()
        _, _, parent = name.partition(".")
        return any(server in (name, f"*.{parent}") for server in self.servers)


def policy_id(texts: list[bytes]) -> str | None:
    """Return the ID in the TXT records at `_mta-sts.DOMAIN`; None unless one is valid (§3.1)."""
    found = [text for text in texts if re.match(rb"v=STSv1\s*(;|$)", text)]
    if len(found) != 1:
        return None
    for field in found[0].decode("ascii", "replace").split(";")[1:]:
        name, equals, value = field.strip().partition("=")
        if name.strip() == "id" and equals:
            return value.strip() if _ID.fullmatch(value.strip()) else None
    return None


def parse_policy(text: str) -> StsPolicy:
    """Read a policy of at most `MAX_POLICY_OCTETS` (RFC 8461 §3.2); unknown fields are ignored.

    Raises `StsPolicyError`.
    """
    if "\0" in text:  # PostgreSQL text cannot contain it
        raise StsPolicyError("it has a NUL")
    pairs = [
        (name.strip(), value.strip())
        for name, colon, value in (line.partition(":") for line in text.split("\n"))
        if colon
    ]
    fields = dict(reversed(pairs))  # of several, the first one counts
    servers = tuple(value.rstrip(".").lower() for name, value in pairs if name == "mx")
    if fields.get("version") != "STSv1":
        raise StsPolicyError("it does not say version: STSv1")
    mode, age = fields.get("mode", ""), fields.get("max_age", "")
    if mode not in _MODES:
        raise StsPolicyError(f"its mode is {mode[:20]!r}")
    if not re.fullmatch(r"[0-9]{1,10}", age):
        raise StsPolicyError("it has no max_age")
    if not (servers or mode == "none") or len(servers) > _MAX_SERVERS:
        raise StsPolicyError(f"it names {len(servers)} servers")
    return StsPolicy(mode, servers, timedelta(seconds=min(int(age), _MAX_AGE)))


@dataclass(frozen=True, slots=True)
class _Found:
    """A domain's policy, if any; not `is_known`: DNS failed, so there may be another."""

    policy: StsPolicy | None
    is_known: bool = True


class StsPolicies:
    """The policies of all domains."""

    def __init__(
        self,
        resolver: AsyncResolver,
        store: Store,
        clock: Clock,
        connector: Connector,
        port: int = 443,
    ) -> None:
        """`port` is where the policies are served."""
        self._resolver = resolver
        self._store = store
        self._clock = clock
        self._connector = connector
        self._port = "" if port == 443 else f":{port}"  # noqa: PLR2004 - HTTPS
        self._failed: TTLCache[tuple[str, str], bool] = TTLCache(
            _REMEMBERED, _AFTER_FAILURE_SECONDS, timer=seconds_of(clock)
        )
        self._found: TTLCache[str, _Found] = TTLCache(
            _REMEMBERED, _HOLDS_SECONDS, timer=seconds_of(clock)
        )
        self._asking: InFlight[str, _Found] = InFlight()

    async def find(self, domain: str) -> StsPolicy | None:
        """Return the domain's current policy, None without one. Raises `StoreUnavailableError`."""
        found: _Found | None = self._found.get(domain)
        if found is None:
            found = await self._asking.share(domain, lambda: self._find(domain))
            if found.is_known:
                self._found[domain] = found
        return found.policy

    async def close(self) -> None:
        self._asking.close()
        await self._connector.close()

    async def _find(self, domain: str) -> _Found:
        now = self._clock.now()
        kept = await self._kept(domain, now)
        known = parse_policy(kept.policy) if kept else None
        try:
            answer = await self._resolver.query(f"_mta-sts.{domain}", "TXT")
        except DnsFailedError:
            return _Found(known, is_known=False)
        wanted = policy_id(answer.texts)
        is_current = kept is not None and kept.policy_id == wanted and not _is_old(kept, now)
        if wanted is None or is_current or (domain, wanted) in self._failed:
            return _Found(known)
        try:
            text = await self._fetch(domain)
            policy = parse_policy(text)
        except StsPolicyError as error:
            log.warning("the MTA-STS policy of %s cannot be used: %s", domain, error)
            self._failed[domain, wanted] = True
            return _Found(known)
        await self._keep(CachedStsPolicy(domain, wanted, text, now, now + policy.max_age))
        return _Found(policy)

    async def _fetch(self, domain: str) -> str:
        """Fetch the policy by HTTPS (RFC 8461 §3.3). Raises `StsPolicyError`."""
        url = f"https://mta-sts.{domain}{self._port}/.well-known/mta-sts.txt"
        try:
            answer = await self._connector.get(url, _FETCH_SECONDS)
        except ConnectorError as error:
            raise StsPolicyError(str(error)) from error
        if answer.status != 200:  # noqa: PLR2004 - §3.3: no redirects either
            raise StsPolicyError(f"{url} answered {answer.status}")
        if answer.content_type.partition(";")[0].strip().lower() != "text/plain":
            raise StsPolicyError(f"{url} is no text/plain")
        return answer.body.decode("utf-8", "replace")

    async def _kept(self, domain: str, now: datetime) -> CachedStsPolicy | None:
        found = await self._store.read(FindStsPolicy(domain))
        return found if found is not None and found.expires_at > now else None

    async def _keep(self, policy: CachedStsPolicy) -> None:
        try:
            await self._store.write(PutStsPolicy(policy))
        except StoreUnavailableError as error:
            log.warning("the MTA-STS policy of %s cannot be kept: %s", policy.domain, error)


def _is_old(kept: CachedStsPolicy, now: datetime) -> bool:
    """RFC 8461 §5.1: refresh well before the end, or an attacker could let it expire."""
    return now - kept.fetched_at > min(_REFRESHED, (kept.expires_at - kept.fetched_at) / 2)
