"""The IDs of messages and requests. All other code treats them as opaque.

Received messages: as in SES, 40 characters of `0-9a-v` (200 bits in base32hex): 48 bits of Unix
milliseconds, then 152 random bits, so that they sort by time and need no coordination.
Outbound messages: `0100`, 12 hex digits of Unix milliseconds, `-`, a UUID, `-000000`.
"""

import os
import uuid
from base64 import b32hexencode
from datetime import datetime
from typing import Protocol

from sendback.clock import to_milliseconds


class IdMaker(Protocol):
    """Makes the IDs of messages and requests; tests replace it to fix them."""

    def received_message(self, now: datetime) -> str: ...

    def outbound_message(self, now: datetime) -> str: ...

    def request(self) -> str: ...

    def boundary(self) -> str: ...


class RandomIds:
    """IDs with random bits from the system."""

    def received_message(self, now: datetime) -> str:
        raw = to_milliseconds(now).to_bytes(6) + os.urandom(19)
        return b32hexencode(raw).decode("ascii").lower()

    def outbound_message(self, now: datetime) -> str:
        return (
            f"0100{to_milliseconds(now):012x}-{uuid.UUID(bytes=os.urandom(16), version=4)}-000000"
        )

    def request(self) -> str:
        return str(uuid.UUID(bytes=os.urandom(16), version=4))

    def boundary(self) -> str:
        """Return a MIME boundary: 128 random bits, so that no mail can contain it on purpose."""
        return f"=_{os.urandom(16).hex()}"
