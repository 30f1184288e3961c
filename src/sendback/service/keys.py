"""Access keys: making, listing, deleting, and finding the secret behind one."""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from sendback.clock import Clock
from sendback.service.caller import Caller
from sendback.service.sealing import Sealing
from sendback.store.accounts import AddAccount
from sendback.store.keys import AddKey, DeleteKey, FindKey, ListKeys
from sendback.store.store import Store
from sendback.store.values import AccessKey

DEVELOPMENT_KEY = "test"
DEVELOPMENT_SECRET = "test"  # noqa: S105 - known to all, and refused off loopback
# A key that another process deletes stops working here after this long.
_CACHE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Signer:
    """A caller, and the secret that only the verifier of signatures may see."""

    caller: Caller
    secret: str


class Keys:
    """The access keys of all accounts; knows the development key when it is given its account."""

    def __init__(
        self, store: Store, clock: Clock, sealing: Sealing, development_account: str | None
    ) -> None:
        self._store = store
        self._clock = clock
        self._sealing = sealing
        self._cache: dict[str, tuple[float, Signer]] = {}
        self._development = (
            Signer(Caller(development_account, "developer", DEVELOPMENT_KEY), DEVELOPMENT_SECRET)
            if development_account
            else None
        )

    async def find(self, access_key: str) -> Signer | None:
        """Who signs with this key, or None. Raises `StoreUnavailableError`."""
        if self._development and access_key == DEVELOPMENT_KEY:
            return self._development
        cached = self._cache.get(access_key)
        if cached and monotonic() - cached[0] < _CACHE_SECONDS:
            return cached[1]
        key = await self._store.read(FindKey(access_key))
        if key is None:
            self._cache.pop(access_key, None)
            return None
        secret = self._sealing.open(key.sealed_secret, key.access_key)
        signer = Signer(Caller(key.account_id, key.user_name, key.access_key), secret)
        self._cache[access_key] = (monotonic(), signer)
        return signer

    async def create(self, account_id: str, user_name: str) -> Signer:
        """A new key pair; its secret is shown this once and kept sealed."""
        access_key = "AKIA" + base64.b32encode(os.urandom(10)).decode("ascii")
        secret = base64.b64encode(os.urandom(30)).decode("ascii")
        now = self._clock.now()
        await self._store.write(AddAccount(account_id, now))
        sealed = self._sealing.seal(secret, access_key)
        await self._store.write(AddKey(AccessKey(access_key, account_id, user_name, sealed, now)))
        return Signer(Caller(account_id, user_name, access_key), secret)

    async def list(self) -> Sequence[AccessKey]:
        return await self._store.read(ListKeys())

    async def delete(self, access_key: str) -> bool:
        """Whether there was one."""
        return await self._store.write(DeleteKey(access_key))
