"""The key that signs SNS messages, and its certificate: one for all nodes of an installation.

Subscribers know one certificate, whichever node has sent the message, and each node serves it. So
both are in the database, sealed with the installation's secret. They are made when they are first
needed; of two nodes that make them at once, one wins.
"""

import asyncio
import base64
from pathlib import Path

from sendback.crypto.certificates import new_certificate
from sendback.crypto.sealing import Sealing
from sendback.store.access.installation import FindValue, GetOrSet
from sendback.store.engine.store import Store

_NAME = "sns_key"


class SigningKey:
    """Reads the key from the store, or makes it."""

    def __init__(self, store: Store, sealing: Sealing, hostname: str, earlier_file: Path) -> None:
        """`earlier_file` is where earlier versions had the key: it is taken over."""
        self._store = store
        self._sealing = sealing
        self._hostname = hostname
        self._earlier_file = earlier_file

    async def find(self) -> bytes | None:
        """Return the key and its certificate (PEM), or None if there are none yet.

        Raise `SecretError`, `StoreUnavailableError`.
        """
        sealed = await self._store.read(FindValue(_NAME))
        if sealed is None:
            return None
        return self._sealing.open(base64.b64decode(sealed), _NAME)

    async def find_or_make(self) -> bytes:
        """Return the key and its certificate; store new ones first if there are none.

        Raise `SecretError`, `StoreUnavailableError`, `OSError`.
        """
        found = await self.find()
        if found is not None:
            return found
        made = await asyncio.to_thread(self._make)
        sealed = base64.b64encode(self._sealing.seal(made, _NAME)).decode()
        stored = await self._store.write(GetOrSet(_NAME, sealed))
        return self._sealing.open(base64.b64decode(stored), _NAME)

    def _make(self) -> bytes:
        if self._earlier_file.exists():
            return self._earlier_file.read_bytes()
        return new_certificate(self._hostname, rsa=True)
