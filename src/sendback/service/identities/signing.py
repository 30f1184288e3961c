"""Signs outbound messages with the DKIM keys of their senders.

Theory of operation. The keys are those of the closest domain that covers the sender's address, is
published and is enabled (SES API: SetIdentityDkimEnabled; an address's own setting wins over its
domain's). They belong to the account that owns the sender's identity. Lookups are cached until the
store changes; opened keys are cached while in use, because opening one costs more than signing.
Signing is done in threads: OpenSSL releases the interpreter lock meanwhile.

Mail must not leave unsigned because its keys cannot be read: `sign` raises, and the delivery is
retried later.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

from cachetools import LRUCache

from sendback.clock import Clock
from sendback.crypto.sealing import Sealing
from sendback.mail.address import AddressError, parse_address
from sendback.mail.covering import covering_names
from sendback.mail.dkim import SigningKey, sign
from sendback.service.identities.dkim_keys import ED25519, belongs_to
from sendback.store.engine.caching import StoreCache
from sendback.store.engine.store import Store
from sendback.store.identities.dkim_keys import DkimKey, FindSigningKeys
from sendback.store.outbox.rows import OutboxMessage

_REMEMBERED = 10_000


class Signing:
    """Signs outbound messages."""

    def __init__(self, store: Store, clock: Clock, sealing: Sealing) -> None:
        self._store = store
        self._clock = clock
        self._sealing = sealing
        self._found: StoreCache[tuple[str, str], tuple[SigningKey, ...]] = StoreCache(
            store.changes, _REMEMBERED
        )
        self._opened: LRUCache[str, SigningKey] = LRUCache(_REMEMBERED)
        self._threads = ThreadPoolExecutor(os.cpu_count() or 1, "signing")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    async def sign(self, message: OutboxMessage) -> OutboxMessage:
        """Return the message with its signatures; unchanged when its sender has no key.

        Raises `StoreUnavailableError` and `SecretError` when its keys cannot be read.
        """
        if message.sender is None:
            return message
        account_id = message.sender_account_id or message.account_id
        keys = await self._keys(account_id, message.sender)
        if not keys:
            return message
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _signed, message, keys, self._clock.now())

    async def _keys(self, account_id: str, sender: str) -> tuple[SigningKey, ...]:
        found = await self._found.get((account_id, sender), lambda: self._find(account_id, sender))
        return found or ()

    async def _find(self, account_id: str, sender: str) -> tuple[SigningKey, ...]:
        try:
            address = parse_address(sender)
        except AddressError:
            return ()
        unit = FindSigningKeys(account_id, address.key, tuple(covering_names(address)))
        return tuple(self._open(key) for key in await self._store.read(unit) if key.sealed_key)

    def _open(self, key: DkimKey) -> SigningKey:
        found: SigningKey | None = self._opened.get(key.selector)
        if found is None:
            name = belongs_to(key.account_id, key.domain, key.selector)
            private = self._sealing.open(key.sealed_key or b"", name)
            algorithm = f"{key.algorithm}-sha256"
            make = signer(private, ed25519=key.algorithm == ED25519)
            found = SigningKey(key.domain, key.selector, algorithm, make)
            self._opened[key.selector] = found
        return found


def _signed(message: OutboxMessage, keys: Sequence[SigningKey], now: datetime) -> OutboxMessage:
    content = sign(message.content, keys, now) + message.content
    fallback = message.fallback
    if fallback is not None:
        fallback = sign(fallback, keys, now) + fallback
    return replace(message, content=content, fallback=fallback)


def signer(private: bytes, *, ed25519: bool) -> Callable[[bytes], bytes]:
    """Return a function that signs with a private key (PKCS 8, DER)."""
    from cryptography.hazmat.primitives import hashes  # noqa: PLC0415 - 8 MB
    from cryptography.hazmat.primitives.asymmetric import padding  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_der_private_key  # noqa: PLC0415

    # It was created here and its encryption is authenticated: another check would cost 35 ms.
    key: Any = load_der_private_key(private, None, unsafe_skip_rsa_key_validation=True)
    if ed25519:
        return lambda octets: bytes(key.sign(octets))
    scheme, algorithm = padding.PKCS1v15(), hashes.SHA256()
    return lambda octets: bytes(key.sign(octets, scheme, algorithm))
