"""Links that verify an address: signed, so that only this installation makes them, and expiring.

`/verify?t=PAYLOAD.SIGNATURE`, both base64url. The payload says for whom the link is and until when;
the identity's own token in it makes the link useless once it was used.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import astuple, dataclass
from datetime import timedelta

from sendback.clock import Clock, to_milliseconds
from sendback.crypto.sealing import Sealing
from sendback.errors import SendbackError

PATH = "/verify"
_MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class Link:
    """What a link says: `expires_at` in Unix milliseconds, `template` the custom one, if any."""

    account_id: str
    address: str
    token: str
    expires_at: int
    template: str


class ForgedLinkError(SendbackError):
    """Nothing that this installation made."""


class Links:
    """Makes and reads links."""

    def __init__(self, sealing: Sealing, clock: Clock, url: str, lasts: timedelta) -> None:
        """`url` is this server's as those who get mail see it."""
        self._sealing = sealing
        self._clock = clock
        self._url = url
        self.lasts = lasts

    def make(self, account_id: str, address: str, token: str, template: str = "") -> str:
        """The URL."""
        expires_at = to_milliseconds(self._clock.now() + self.lasts)
        link = Link(account_id, address, token, expires_at, template)
        payload = _encode(json.dumps(astuple(link), separators=(",", ":")).encode())
        return f"{self._url}{PATH}?t={payload}.{_encode(self._sign(payload))}"

    def read(self, text: str) -> Link:
        """Raises `ForgedLinkError`."""
        payload, _, signature = text.partition(".")
        try:
            if len(text) > _MAX_LENGTH:
                raise ForgedLinkError
            if not hmac.compare_digest(_decode(signature), self._sign(payload)):
                raise ForgedLinkError
            return Link(*json.loads(_decode(payload)))
        except (ValueError, TypeError):
            raise ForgedLinkError from None

    def has_expired(self, link: Link) -> bool:
        return link.expires_at <= to_milliseconds(self._clock.now())

    def _sign(self, payload: str) -> bytes:
        key = self._sealing.derive("verification links")
        return hmac.new(key, payload.encode("utf-8", "replace"), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _decode(text: str) -> bytes:
    padded = text + "=" * (-len(text) % 4)
    return base64.b64decode(padded.encode("ascii"), b"-_", validate=True)
