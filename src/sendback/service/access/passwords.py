"""Console passwords: set, delete and verify them.

Hashed by argon2id with the parameters that OWASP recommends (19 MiB, two passes). argon2 is
imported when a password is used first, and hashes in a thread, two at a time: a login costs memory.
"""

import asyncio
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from sendback.clock import Clock
from sendback.service.access.accounts import AccountError, no_account
from sendback.store.access.passwords import DeletePassword, FindPassword, PutPassword
from sendback.store.engine.errors import NotFoundError
from sendback.store.engine.store import Store

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST, LONGEST = 12, 200
_AT_ONCE = 2
_NAME_LENGTH = 64


class Passwords:
    """The console passwords of all users."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._hashing = asyncio.Semaphore(_AT_ONCE)
        self._dummy: str | None = None

    async def set(self, account_id: str, user: str, password: str) -> None:
        """Set the user's password; its sessions that began with the last one end.

        Raise `AccountError` for a password that is too short or long, and for an unknown user.
        """
        if not SHORTEST <= len(password) <= LONGEST:
            raise AccountError(f"a console password has {SHORTEST} to {LONGEST} characters")
        made = await self._hash(password)
        try:
            await self._store.write(PutPassword(account_id, user, made, self._clock.now()))
        except NotFoundError:
            if user == "root":
                raise no_account(account_id) from None
            raise AccountError(f"account {account_id} has no user {user}") from None

    async def delete(self, account_id: str, user: str) -> bool:
        """Delete the user's password, and end its sessions; return whether there was one."""
        return await self._store.write(DeletePassword(account_id, user))

    async def has_one(self, account_id: str, user: str) -> bool:
        """Whether the user has a password."""
        return await self._store.read(FindPassword(account_id, user)) is not None

    async def verify(self, account_id: str, user: str, password: str) -> str | None:
        """Return the hash if it is the user's password, or None.

        It takes the same time for a user who has none.
        """
        if len(password) > LONGEST or len(user) > _NAME_LENGTH or "\0" in account_id + user:
            return None
        found = await self._store.read(FindPassword(account_id, user))
        if self._dummy is None:
            self._dummy = await self._hash("no user has this password")
        text = _normal(password)
        async with self._hashing:
            is_right = await asyncio.to_thread(_verify, found or self._dummy, text)
        return found if is_right else None

    async def _hash(self, password: str) -> str:
        text = _normal(password)
        async with self._hashing:
            return await asyncio.to_thread(lambda: _hasher().hash(text))


@cache
def _hasher() -> "PasswordHasher":
    from argon2 import PasswordHasher  # noqa: PLC0415 - few processes need it

    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def _verify(made: str, password: bytes) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError  # noqa: PLC0415

    try:
        return _hasher().verify(made, password)
    except (VerificationError, InvalidHashError):
        return False


def _normal(password: str) -> bytes:
    """Return the octets of a password: the same however the keyboard composes letters."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "replace")
