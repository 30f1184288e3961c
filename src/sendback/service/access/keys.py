"""Access keys: create, list and delete them, and find the secret of one.

A temporary key has a session token, of which only the hash is stored, and an end.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cachetools import TTLCache

from sendback.aws.arn import ROOT_USER
from sendback.clock import Clock, seconds_of
from sendback.crypto.sealing import Sealing
from sendback.service.access.accounts import AccountError, check_name, no_account
from sendback.service.access.authorization import restrictions
from sendback.service.access.caller import Caller
from sendback.store.access.keys import (
    AccessKey,
    AddKeyOfUser,
    DeleteKey,
    FindKey,
    ListKeys,
    RecordUse,
    SetKeyDisabled,
)
from sendback.store.access.users import NamedPolicy
from sendback.store.engine.caching import StoreCache
from sendback.store.engine.errors import NotFoundError, StoreUnavailableError
from sendback.store.engine.store import Store

log = logging.getLogger(__name__)

DEVELOPMENT_KEY = "test"
DEVELOPMENT_SECRET = "test"  # noqa: S105 - known to all, and refused off loopback
# STS API: GetSessionToken, DurationSeconds.
SHORTEST_SESSION, LONGEST_SESSION = timedelta(minutes=15), timedelta(hours=36)
_CACHED_KEYS = 10_000
_USE_RECORDED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Signer:
    """A caller with its secret, for the verification of signatures only."""

    caller: Caller
    secret: str = field(repr=False)
    token_hash: str | None = field(default=None, repr=False)
    expires_at: datetime | None = None

    def has_token(self, token: str | None) -> bool:
        """Return whether the session token is the one of the key, or both have none."""
        if self.token_hash is None or token is None:
            return self.token_hash is None and token is None
        return hmac.compare_digest(hash_token(token), self.token_hash)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key with its secret, which is shown this once."""

    key: AccessKey
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class Keys:
    """The access keys of all accounts, and the development key if it has an account."""

    def __init__(
        self, store: Store, clock: Clock, sealing: Sealing, development_account: str | None
    ) -> None:
        self._store = store
        self._clock = clock
        self._sealing = sealing
        self._cache: StoreCache[str, Signer] = StoreCache(store.changes, _CACHED_KEYS)
        self._recorded: TTLCache[str, bool] = TTLCache(
            _CACHED_KEYS, _USE_RECORDED_SECONDS, timer=seconds_of(clock)
        )
        self._recording: set[asyncio.Task[None]] = set()
        self._development = (
            Signer(Caller(development_account, "developer", DEVELOPMENT_KEY), DEVELOPMENT_SECRET)
            if development_account
            else None
        )

    async def find(self, access_key: str) -> Signer | None:
        """Return the signer with this key, or None.

        Raises `StoreUnavailableError`, `SecretError`.
        """
        if self._development and access_key == DEVELOPMENT_KEY:
            return self._development
        return await self._cache.get(access_key, lambda: self._find(access_key))

    def used(self, access_key: str) -> None:
        """Note a call that was signed with the key; recorded at intervals, in the background."""
        if access_key == DEVELOPMENT_KEY or access_key in self._recorded:
            return
        self._recorded[access_key] = True
        task = asyncio.create_task(self._record(access_key, self._clock.now()))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def create(self, account_id: str, user_name: str) -> IssuedKey:
        """Create a key pair; its secret is returned this once and stored sealed.

        The account of a root user is added if there is none. Raises `AccountError`.
        """
        return await self._issue(account_id, user_name, "AKIA", None)

    async def create_temporary(
        self, account_id: str, user_name: str, lasts: timedelta
    ) -> IssuedKey:
        """Create credentials with a session token that last 15 minutes to 36 hours.

        Raises `AccountError`.
        """
        if not SHORTEST_SESSION <= lasts <= LONGEST_SESSION:
            raise AccountError("temporary credentials last from 15m to 36h")
        return await self._issue(account_id, user_name, "ASIA", lasts)

    async def list(self, account_id: str | None) -> Sequence[AccessKey]:
        """Return the keys of the account, or all."""
        return await self._store.read(ListKeys(account_id))

    async def delete(self, account_id: str, access_key: str) -> bool:
        """Whether there was one."""
        return await self._store.write(DeleteKey(account_id, access_key))

    async def set_enabled(self, account_id: str, access_key: str, *, enabled: bool) -> bool:
        """Whether there was one."""
        disabled_at = None if enabled else self._clock.now()
        return await self._store.write(SetKeyDisabled(account_id, access_key, disabled_at))

    async def _find(self, access_key: str) -> Signer | None:
        found = await self._store.read(FindKey(access_key))
        if found is None or found[0].disabled_at is not None:
            return None
        return self._signer(*found)

    async def _issue(
        self, account_id: str, user_name: str, prefix: str, lasts: timedelta | None
    ) -> IssuedKey:
        check_name(user_name, "user")
        access_key = prefix + base64.b32encode(os.urandom(10)).decode("ascii")
        secret = base64.b64encode(os.urandom(30)).decode("ascii")
        token = base64.b64encode(os.urandom(96)).decode("ascii") if lasts else None
        now = self._clock.now()
        key = AccessKey(
            access_key=access_key,
            account_id=account_id,
            user_name=user_name,
            sealed_secret=self._sealing.seal(secret.encode(), access_key),
            created_at=now,
            expires_at=now + lasts if lasts else None,
            token_hash=hash_token(token) if token else None,
        )
        try:
            await self._store.write(AddKeyOfUser(key, may_create=lasts is None))
        except NotFoundError:
            raise _unknown_caller(account_id, user_name) from None
        return IssuedKey(key, secret, token)

    def _signer(self, key: AccessKey, policies: Sequence[NamedPolicy]) -> Signer:
        secret = self._sealing.open(key.sealed_secret, key.access_key).decode()
        limits = restrictions(key.user_name, policies)
        caller = Caller(key.account_id, key.user_name, key.access_key, limits)
        return Signer(caller, secret, key.token_hash, key.expires_at)

    async def _record(self, access_key: str, now: datetime) -> None:
        try:
            await self._store.write(RecordUse({access_key: now}))
        except StoreUnavailableError as error:
            self._recorded.pop(access_key, None)
            log.warning("the use of %s was not recorded: %s", access_key, error)


def _unknown_caller(account_id: str, user_name: str) -> AccountError:
    if user_name == ROOT_USER:
        return no_account(account_id)
    return AccountError(
        f"the account has no user {user_name}: create it with `sendback users create {user_name}`"
    )


def hash_token(token: str) -> str:
    """Return the stored form of a session token: with 768 random bits, a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()
