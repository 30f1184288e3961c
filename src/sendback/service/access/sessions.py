"""Signing in to the console, and sessions.

Attempts are counted before the secret is looked at, in the store, so that all workers and nodes
share the count and attempts at the same moment do not slip through. They are counted for a network
and a name together, and for a network: nobody can keep a user from signing in from elsewhere.
"""

import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass
from datetime import timedelta

from cachetools import TTLCache

from sendback.clock import Clock, seconds_of
from sendback.errors import SendbackError
from sendback.net.networks import client_network
from sendback.service.access.authorization import restrictions
from sendback.service.access.caller import Caller
from sendback.service.access.keys import DEVELOPMENT_KEY, Keys
from sendback.service.access.passwords import Passwords
from sendback.store.access.sessions import (
    AddSession,
    EndSession,
    FindSession,
    StoredSession,
    TouchSession,
)
from sendback.store.engine.errors import StoreUnavailableError
from sendback.store.engine.store import Store
from sendback.store.events.counters import CountTogether

log = logging.getLogger(__name__)

# Of a name from a network, and of a network, in this time.
MAX_ATTEMPTS, MAX_NETWORK_ATTEMPTS = 10, 50
ATTEMPTS_IN = timedelta(minutes=15)
_ATTEMPT = "login"
_LONGEST = 2048  # characters of a secret or a session token
_LONGEST_KEY = 128
_USE_RECORDED_SECONDS = 60.0
_CACHED = 10_000
_NO_SECRET = secrets.token_hex(20)


class SignInError(SendbackError):
    """The user cannot sign in; `str` is what to say, which does not disclose why."""


class TooManyAttemptsError(SignInError):
    """Too many attempts from this network."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What somebody signs in with: a password, or an access key (with a token if temporary)."""

    account_id: str = ""
    user: str = ""
    password: str = ""
    access_key: str = ""
    secret: str = ""
    token: str = ""

    @property
    def name(self) -> str:
        """Whose attempt it is."""
        return self.access_key or f"{self.account_id}/{self.user}"


class Sessions:
    """The sessions of all users, in the store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        keys: Keys,
        passwords: Passwords,
        *,
        lasts: timedelta,
        idle: timedelta,
    ) -> None:
        """A session ends after `lasts`, and after `idle` without a request."""
        self._store = store
        self._clock = clock
        self._keys = keys
        self._passwords = passwords
        self._lasts = lasts
        self._idle = idle
        self._recorded: TTLCache[str, bool] = TTLCache(
            _CACHED, _USE_RECORDED_SECONDS, timer=seconds_of(clock)
        )

    async def find(self, session: str) -> Caller | None:
        """Return the user of a session, with its policies, or None when the session has ended.

        Raises `StoreUnavailableError`.
        """
        now, name = self._clock.now(), _hash(session)
        found = await self._store.read(FindSession(name, now, now - self._idle))
        if found is None:
            return None
        stored, policies = found
        if name not in self._recorded:
            self._recorded[name] = True
            await self._touch(name)
        limits = restrictions(stored.user_name, policies)
        return Caller(stored.account_id, stored.user_name, stored.access_key or "console", limits)

    async def sign_in(self, given: Credentials, client_ip: str) -> str:
        """Return a new session. Raise `SignInError`, `StoreUnavailableError`."""
        await self.count_attempt(given, client_ip)
        if given.access_key:
            account_id, user = await self._user_of_key(given)
            session = await self._begin(account_id, user, given.access_key, "")
            self._keys.used(given.access_key)
        else:
            session = await self.begin_by_password(given.account_id, given.user, given.password)
        # Many may sign in from one network: only attempts that fail count.
        now = self._clock.now()
        await self._store.write(CountTogether(_ATTEMPT, _details(given, client_ip), now, now, -1))
        return session

    async def begin_by_password(self, account_id: str, user: str, password: str) -> str:
        """Return a new session of a user, without counting the attempt. Raise `SignInError`."""
        found = await self._passwords.verify(account_id, user, password)
        if found is None:
            raise SignInError("The account, the user or the password is wrong.")
        return await self._begin(account_id, user, "", found)

    async def _begin(self, account_id: str, user: str, access_key: str, password_hash: str) -> str:
        session, now = secrets.token_urlsafe(32), self._clock.now()
        stored = StoredSession(
            _hash(session), account_id, user, access_key, now, now, now + self._lasts
        )
        if not await self._store.write(AddSession(stored, password_hash)):
            raise SignInError("What you sign in with was changed at this moment. Try again.")
        return session

    async def sign_out(self, session: str) -> None:
        """End a session. Raises `StoreUnavailableError`."""
        await self._store.write(EndSession(_hash(session)))

    async def _user_of_key(self, given: Credentials) -> tuple[str, str]:
        """Return the account and the user of an access key. Raise `SignInError`."""
        wrong = SignInError("The access key, its secret or its session token is wrong.")
        is_possible = len(given.access_key) <= _LONGEST_KEY and "\0" not in given.access_key
        # The secret of the development key is known to all.
        is_possible = is_possible and given.access_key != DEVELOPMENT_KEY
        signer = await self._keys.find(given.access_key) if is_possible else None
        secret = signer.secret if signer else _NO_SECRET
        is_right = hmac.compare_digest(_octets(given.secret), _octets(secret))
        if signer is None or not is_right or not signer.has_token(given.token or None):
            raise wrong
        if signer.expires_at is not None and signer.expires_at <= self._clock.now():
            raise SignInError("The temporary access key has expired.")
        return signer.caller.account_id, signer.caller.user_name

    async def count_attempt(self, given: Credentials, client_ip: str) -> None:
        """Count an attempt. Raise `TooManyAttemptsError`."""
        now = self._clock.now()
        counted = CountTogether(_ATTEMPT, _details(given, client_ip), now, now - ATTEMPTS_IN)
        of_name, of_network = await self._store.write(counted)
        if of_name > MAX_ATTEMPTS or of_network > MAX_NETWORK_ATTEMPTS:
            log.warning("login_limited network=%s", client_network(client_ip))
            minutes = int(ATTEMPTS_IN.total_seconds() // 60)
            raise TooManyAttemptsError(
                f"There were too many attempts from your network. Try again in {minutes} minutes."
            )

    async def _touch(self, name: str) -> None:
        try:
            await self._store.write(TouchSession(name, self._clock.now()))
        except StoreUnavailableError as error:
            self._recorded.pop(name, None)
            log.warning("the use of a session was not recorded: %s", error)


def _hash(session: str) -> str:
    """Return the stored form of a session: with 256 random bits, a plain hash is enough."""
    return hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()


def _details(given: Credentials, client_ip: str) -> tuple[str, str]:
    """Return the names of the counters of an attempt: of the name, and of the network."""
    network = client_network(client_ip)
    return _short(f"{network}\n{given.name}"), _short(network)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def _octets(secret: str) -> bytes:
    return secret[:_LONGEST].encode("utf-8", "replace")
